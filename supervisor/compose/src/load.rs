//! Loading a project: the stages in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::assembly::{Assembly, Setting, services};
use crate::check;
use crate::diagnostic::{Errors, Warning};
use crate::files::{Disk, Files};
use crate::findings::Findings;
use crate::interpolate;
use crate::merge::settle;
use crate::model::{Project, nearest};
use crate::source::{Variables, join};
use crate::yaml::{Node, Value};

/// The names of a Compose file, best first, and of the one laid over it when it stands beside.
const NAMES: [(&str, &str); 4] = [
    ("compose.yaml", "compose.override.yaml"),
    ("compose.yml", "compose.override.yml"),
    ("docker-compose.yaml", "docker-compose.override.yaml"),
    ("docker-compose.yml", "docker-compose.override.yml"),
];

/// What a project is loaded from. [`Project::load`] is the short way.
///
/// ```no_run
/// use minisup_compose::{Loader, Tree};
///
/// let files = Tree::new().with("/app/compose.yaml", "services: {web: {image: 'app:${TAG}'}}");
/// let (project, warnings) = Loader::new(&files, ["/app/compose.yaml"])
///     .environment([("TAG".to_owned(), "v2".to_owned())])
///     .load()?;
/// assert_eq!(project.services["web"].image, "app:v2");
/// assert!(warnings.is_empty());
/// # Ok::<(), minisup_compose::Errors>(())
/// ```
#[derive(Clone)]
pub struct Loader<'a> {
    files: &'a dyn Files,
    paths: Vec<PathBuf>,
    directory: Option<PathBuf>,
    environment: Variables,
    env_files: Option<Vec<PathBuf>>,
    profiles: BTreeSet<String>,
    targets: BTreeSet<String>,
    name: Option<String>,
    platform: String,
    texts: BTreeMap<PathBuf, String>,
}

/// The files, and texts that are none.
struct WithTexts<'a> {
    files: &'a dyn Files,
    texts: &'a BTreeMap<PathBuf, String>,
}

impl Files for WithTexts<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        match self.texts.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => self.files.read(path),
        }
    }
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the environment, which holds secrets.
        f.debug_struct("Loader").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<'a> Loader<'a> {
    /// Loads these files, each laid over those before it. Relative paths in them start in the
    /// directory of the first.
    pub fn new<P: Into<PathBuf>>(files: &'a dyn Files, paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            files,
            paths: paths.into_iter().map(Into::into).collect(),
            directory: None,
            environment: Variables::new(),
            env_files: None,
            profiles: BTreeSet::new(),
            targets: BTreeSet::new(),
            name: None,
            platform: host_platform(),
            texts: BTreeMap::new(),
        }
    }

    /// Lays a text over the files, as if it were one more of them: what options of the command line
    /// say. `name` stands for it in messages; with no files before it, the text is the project.
    #[must_use]
    pub fn text(mut self, name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let name = name.into();
        self.paths.push(name.clone());
        self.texts.insert(name, text.into());
        self
    }

    /// The directory that relative paths of the files start in (`--project-directory`).
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The variables of the caller; they win over those of `.env`. `COMPOSE_PROJECT_NAME` and
    /// `COMPOSE_PROFILES` have their usual meaning.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Files of variables instead of `.env` (`--env-file`); each must exist.
    #[must_use]
    pub fn env_files<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.env_files = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Active profiles (`--profile`); `*` is all of them.
    #[must_use]
    pub fn profiles<S: Into<String>>(mut self, profiles: impl IntoIterator<Item = S>) -> Self {
        self.profiles.extend(profiles.into_iter().map(Into::into));
        self
    }

    /// Services named on the command line: the profiles of each are active.
    #[must_use]
    pub fn targets<S: Into<String>>(mut self, services: impl IntoIterator<Item = S>) -> Self {
        self.targets.extend(services.into_iter().map(Into::into));
        self
    }

    /// The name of the project (`--project-name`).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The platform of the host, as `linux/amd64`; by default that of this program.
    #[must_use]
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = platform.into();
        self
    }

    /// Loads the project, with everything in it that is only worth a warning.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of files and lines; those between values
    /// (references, collisions) when each value is good by itself.
    pub fn load(&self) -> Result<(Project, Vec<Warning>), Errors> {
        let mut cx = Findings::default();
        let files = WithTexts { files: self.files, texts: &self.texts };
        let project = self.read(&files, &mut cx);
        match project {
            Some(mut project) if cx.errors.is_empty() => {
                let mut warnings = cx.warnings;
                warnings.sort_by(|a, b| (&a.location, &a.path).cmp(&(&b.location, &b.path)));
                warnings.dedup();
                project.keep_provenance(cx.sources, cx.origins);
                Ok((project, warnings))
            }
            _ => {
                if cx.errors.is_empty() {
                    cx.error_outside("there is nothing in the files", "write `services:`");
                }
                Err(Errors::new(cx.errors))
            }
        }
    }

    fn read(&self, files: &dyn Files, cx: &mut Findings) -> Option<Project> {
        let Some(first) = self.paths.first() else {
            cx.error_outside("no Compose file is given", "name one with `-f`");
            return None;
        };
        let parent = first.parent().unwrap_or(Path::new("."));
        let directory = join(Path::new("."), self.directory.as_deref().unwrap_or(parent));
        let setting =
            Setting { base: directory.clone(), variables: Arc::new(self.environment.clone()) };
        let mut assembly = Assembly {
            files,
            cx,
            including: self.paths.clone(),
            extended: BTreeMap::new(),
            nodes: 0,
        };
        let (env_files, required) = match &self.env_files {
            Some(paths) => (paths.clone(), true),
            None => (vec![directory.join(".env")], false),
        };
        let mut variables = assembly.variables(&env_files, required, &setting, None);
        let name = self.project_name(&mut assembly, &directory, &variables)?;
        variables.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
        let profiles = self.active_profiles(&variables);
        let setting = Setting { base: directory.clone(), variables: Arc::new(variables) };
        let mut root = assembly.load_all(&self.paths, &setting, None)?;
        settle(&mut root);
        let disabled = self.disabled(&root, profiles, assembly.cx);
        assembly.read_env_files(&mut root, |service| !disabled.contains_key(service));
        let mut project = Project::read(&root, name, directory, disabled, cx);
        // A value that could not be read is missing in the project: what is checked between values
        // would blame others for that, so it waits until each is good.
        if cx.errors.is_empty() {
            check::check(&mut project, &self.platform, cx);
        }
        if project.services.is_empty() && project.disabled().is_empty() && cx.errors.is_empty() {
            cx.error_outside("the project has no services", "write `services:`");
        }
        Some(project)
    }

    /// The name, which the files may already use in `${COMPOSE_PROJECT_NAME}`.
    fn project_name(
        &self,
        assembly: &mut Assembly<'_>,
        directory: &Path,
        variables: &Variables,
    ) -> Option<String> {
        let remedy =
            "use lower-case letters, digits, `_` and `-`, and begin with a letter or digit";
        let given = self.name.as_ref().or_else(|| variables.get("COMPOSE_PROJECT_NAME"));
        if let Some(name) = given.filter(|name| !name.is_empty()) {
            if !is_name(name) {
                assembly.problem(None, format!("`{name}` cannot be the name of a project"), remedy);
            }
            return Some(name.clone());
        }
        if let Some((name, node)) = self.written_name(assembly.files, variables, directory) {
            if !is_name(&name) {
                // The file is read again later, and becomes another source with the same text.
                let setting = Setting { base: directory.to_owned(), variables: Default::default() };
                let (id, _) = assembly.read(&node.1, &setting, None)?;
                let span = crate::source::Span { file: id, ..node.0.span };
                let message = format!("`{name}` cannot be the name of a project");
                assembly.cx.error(span, "name", message, remedy);
            }
            return Some(name);
        }
        let base = directory.file_name().map(|name| name.to_string_lossy().to_lowercase());
        let word = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c);
        let name: String = base.unwrap_or_default().chars().filter(word).collect();
        let name = name.trim_start_matches(['_', '-']).to_owned();
        if name.is_empty() {
            let message = "the directory gives no name for the project";
            assembly.problem(
                None,
                message.into(),
                "write `name:` in the file, or give one with `-p`",
            );
            return None;
        }
        Some(name)
    }

    /// The last top-level `name` of the files, filled in. Mistakes in the files are reported when
    /// they are loaded in earnest.
    fn written_name(
        &self,
        files: &dyn Files,
        variables: &Variables,
        directory: &Path,
    ) -> Option<(String, (Node, PathBuf))> {
        let mut scratch = Findings::default();
        let setting = Setting { base: directory.to_owned(), variables: Default::default() };
        let mut found = None;
        for path in &self.paths {
            let mut assembly = Assembly {
                files,
                cx: &mut scratch,
                including: Vec::new(),
                extended: BTreeMap::new(),
                nodes: 0,
            };
            let Some((id, text)) = assembly.read(path, &setting, None) else { continue };
            for document in crate::yaml::parse(id, &text).unwrap_or_default() {
                let Some(node) = document.get("name") else { continue };
                let Some(scalar) = node.as_scalar().filter(|scalar| !scalar.is_null()) else {
                    continue;
                };
                let filled = interpolate::fill(&scalar.text, variables);
                let name = filled.map_or_else(|_| scalar.text.clone(), |filled| filled.text);
                found = Some((name, (node.clone(), path.clone())));
            }
        }
        found
    }

    fn active_profiles(&self, variables: &Variables) -> BTreeSet<String> {
        let mut profiles = self.profiles.clone();
        let from_environment = variables.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or("");
        let names = from_environment.split(',').map(str::trim).filter(|name| !name.is_empty());
        profiles.extend(names.map(str::to_owned));
        profiles
    }

    /// Services that no active profile brings in, and their profiles.
    fn disabled(
        &self,
        root: &Node,
        mut active: BTreeSet<String>,
        cx: &mut Findings,
    ) -> BTreeMap<String, Vec<String>> {
        let mut of_service: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, entry) in services(root).into_iter().flatten() {
            let Some(Value::Sequence(items)) = entry.node.get("profiles").map(|node| &node.value)
            else {
                continue;
            };
            let texts = items.iter().filter_map(|item| Some(item.as_scalar()?.text.clone()));
            of_service.insert(name, texts.collect());
        }
        for target in &self.targets {
            if services(root).is_none_or(|services| !services.contains_key(target)) {
                let known = services(root).into_iter().flatten().map(|(name, _)| name.as_str());
                let remedy = crate::suggest::remedy(target, known, "services there are");
                cx.error_outside(format!("there is no service `{target}`"), remedy);
            }
            active.extend(of_service.get(target.as_str()).into_iter().flatten().cloned());
        }
        let on = |profiles: &[String]| {
            profiles.is_empty()
                || active.contains("*")
                || profiles.iter().any(|p| active.contains(p))
        };
        let off = of_service.into_iter().filter(|(_, profiles)| !on(profiles));
        off.map(|(name, profiles)| (name.to_owned(), profiles)).collect()
    }
}

impl Project {
    /// Loads Compose files of this host.
    ///
    /// `files` are laid over each other in their order; [`find`] finds the usual ones. `env` are
    /// the caller's variables, `profiles` those that are active. [`Loader`] has more to set.
    ///
    /// # Errors
    /// Every mistake that was found, each with its place and what would be right.
    pub fn load<P: AsRef<Path>>(
        files: &[P],
        env: &Variables,
        profiles: &[String],
    ) -> Result<(Self, Vec<Warning>), Errors> {
        // The files keep their names in messages; what they name is absolute.
        let first = files.first().map_or(Path::new("compose.yaml"), AsRef::as_ref);
        let absolute = std::path::absolute(first).unwrap_or_else(|_| first.to_owned());
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Loader::new(&Disk, files.iter().map(AsRef::as_ref))
            .directory(directory)
            .environment(env.clone())
            .profiles(profiles.iter().cloned())
            .load()
    }
}

/// The Compose files that a directory stands for: the usual name in it or in the nearest directory
/// above it, and the override file beside that.
pub fn find(files: &dyn Files, directory: &Path) -> Option<Vec<PathBuf>> {
    let exists = |path: &Path| files.read(path).is_ok();
    for directory in directory.ancestors() {
        for (name, over) in NAMES {
            let (name, over) = (directory.join(name), directory.join(over));
            if exists(&name) {
                return Some(if exists(&over) { vec![name, over] } else { vec![name] });
            }
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(word) && name.len() <= 63 && name.chars().all(|c| word(c) || "_-".contains(c))
}

fn host_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// The place of a value that the checks complain about.
pub(crate) fn complain(
    cx: &mut Findings,
    path: &str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) {
    match nearest(&cx.origins, path) {
        Some(span) => cx.error(span, path, message, remedy),
        None => cx.error_outside(format!("{path}: {}", message.into()), remedy),
    }
}
