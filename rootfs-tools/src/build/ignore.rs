//! `.dockerignore`: what of the context does not exist for the build (Docker's documentation,
//! ".dockerignore file"). The last pattern that matches decides; `!` takes a match back.

use super::pattern::path_or_parent;

/// The patterns of a file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<(bool, Vec<Vec<u8>>)>,
}

impl Ignore {
    /// Reads the file.
    pub fn parse(text: &str) -> Self {
        let mut patterns = Vec::new();
        for line in
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (taken_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
            patterns.push((taken_back, parts.map(|part| part.as_bytes().to_vec()).collect()));
        }
        Self { patterns }
    }

    /// Whether the file at this path does not exist for the build.
    pub fn hides(&self, path: &[u8]) -> bool {
        let path: Vec<_> = path.split(|&byte| byte == b'/').collect();
        let mut hidden = false;
        for (taken_back, pattern) in &self.patterns {
            let pattern: Vec<_> = pattern.iter().map(Vec::as_slice).collect();
            if !pattern.is_empty() && path_or_parent(&pattern, &path) {
                hidden = !taken_back;
            }
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides() {
        let ignore = Ignore::parse("# c\ntarget\n**/*.log\n/docs/*\n!docs/keep.md\n*/temp?\n");
        let hidden = |path: &str| ignore.hides(path.as_bytes());
        for path in ["target", "target/debug/x", "a.log", "a/b/c.log", "docs/x", "a/temp1"] {
            assert!(hidden(path), "{path}");
        }
        for path in ["src/target", "docs/keep.md", "docs", "a/b/temp1", "logs", "temp1"] {
            assert!(!hidden(path), "{path}");
        }
        assert!(!Ignore::default().hides(b"x"));
    }
}
