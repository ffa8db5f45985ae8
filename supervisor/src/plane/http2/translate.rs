//! What differs between the versions: where the host stands, and which fields travel. Pure.

use std::net::SocketAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Uri, Version};

/// Makes a client's request one for an instance, in HTTP/2 if `two`.
pub(super) fn request(
    head: &mut Parts,
    client: SocketAddr,
    tls: bool,
    two: bool,
) -> Result<(), &'static str> {
    let trailers = head.headers.get(header::TE).is_some_and(|te| te == "trailers");
    strip_hop_by_hop(&mut head.headers);
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str().to_string(),
        None => {
            let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            host.ok_or("a request has a host\n")?.to_string()
        }
    };
    forwarded(&mut head.headers, client, tls, &host);
    let path = head.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = hyper::http::uri::Parts::default();
    parts.path_and_query = Some(path);
    if two {
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(host.parse::<Authority>().map_err(|_| "this is no host\n")?);
        head.headers.remove(header::HOST);
        if trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        head.version = Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(&host).map_err(|_| "this is no host\n")?;
        head.headers.insert(header::HOST, host);
        head.version = Version::HTTP_11;
    }
    head.uri = Uri::from_parts(parts).map_err(|_| "this is no target\n")?;
    Ok(())
}

fn forwarded(headers: &mut HeaderMap, client: SocketAddr, tls: bool, host: &str) {
    let name = HeaderName::from_static("x-forwarded-for");
    let mut hops = Vec::new();
    for hop in headers.get_all(&name) {
        hops.extend_from_slice(hop.as_bytes());
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(client.ip().to_canonical().to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&hops) {
        headers.insert(name, value);
    }
    let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
    headers.entry(HeaderName::from_static("x-forwarded-proto")).or_insert(scheme);
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.entry(HeaderName::from_static("x-forwarded-host")).or_insert(host);
    }
}

/// Removes the fields that are about one connection only (RFC 9110, 7.6.1).
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"] {
        headers.remove(name);
    }
    headers.remove(header::TRANSFER_ENCODING);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn made(request: Request<()>, two: bool) -> Result<Parts, &'static str> {
        let mut head = request.into_parts().0;
        super::request(&mut head, ([10, 0, 0, 7], 1).into(), true, two)?;
        Ok(head)
    }

    #[test]
    fn the_host_moves_with_the_version() {
        let request = || Request::get("http://web:80/a?b").header("te", "trailers");
        let one = made(request().body(()).unwrap(), false).unwrap();
        assert_eq!(
            (one.uri.to_string(), one.headers["host"].as_bytes()),
            ("/a?b".into(), &b"web:80"[..])
        );
        assert!(!one.headers.contains_key("te"));
        let two = made(request().body(()).unwrap(), true).unwrap();
        assert_eq!(two.uri, "http://web:80/a?b");
        assert_eq!(two.headers["te"], "trailers", "gRPC needs it");
        assert_eq!(two.headers["x-forwarded-for"], "10.0.0.7");
        assert_eq!(two.headers["x-forwarded-proto"], "https");
        assert_eq!(two.headers["x-forwarded-host"], "web:80");
        assert!(made(Request::get("/a").body(()).unwrap(), true).is_err(), "no host");
    }

    #[test]
    fn fields_of_one_connection_do_not_travel() {
        let request = Request::get("http://x/")
            .header("connection", "close, X-Secret")
            .header("x-secret", "1")
            .header("transfer-encoding", "chunked")
            .header("accept", "*/*")
            .header("x-forwarded-for", "1.2.3.4");
        let made = made(request.body(()).unwrap(), true).unwrap();
        let mut names: Vec<&str> = made.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]);
        assert_eq!(made.headers["x-forwarded-for"], "1.2.3.4, 10.0.0.7");
    }
}
