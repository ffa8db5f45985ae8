use super::*;

fn asked(text: &str) -> Result<(Asked, String), Refusal> {
    let mut out = Vec::new();
    let origin = Origin::of(([10, 0, 0, 7], 999).into(), false);
    let asked = request(text.as_bytes(), &origin, &mut out)?.expect("a whole head");
    Ok((asked, String::from_utf8(out).expect("text")))
}

fn answered(text: &str, request: &str) -> Result<(Answered, String), Nonsense> {
    let (asked, _) = asked(request).expect("a request");
    let mut out = Vec::new();
    let answered = answer(text.as_bytes(), &asked, &mut out)?.expect("a whole head");
    Ok((answered, String::from_utf8(out).expect("text")))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn fields_of_one_connection_do_not_travel_and_the_client_is_named() {
    let (asked, out) = asked(
        "GET /a?b HTTP/1.1\r\nHost: x\r\nConnection: close, X-Secret\r\nx-secret: 1\r\n\
         TE: trailers\r\nAccept: */*\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    )
    .unwrap();
    assert_eq!(
        out,
        "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\
         X-Forwarded-For: 1.2.3.4, 10.0.0.7\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: x\r\n\r\n"
    );
    assert!(!asked.keep_alive && asked.idempotent);
}

#[test]
fn what_two_programs_could_read_differently_is_refused() {
    let with = |fields: &str| {
        asked(&format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).map(|a| a.0.body)
    };
    assert_eq!(with("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(with("Transfer-Encoding: chunked\r\n"), Ok(Framing::CHUNKED));
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Host: y\r\n",
        "Folded: a\r\n b\r\n",
        "Space : a\r\n",
    ] {
        assert!(with(fields).is_err(), "{fields}");
    }
    assert!(asked("GET / HTTP/1.1\r\n\r\n").is_err(), "no host");
    assert!(asked("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n").is_err(), "no tunnel");
    assert!(asked("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
}

#[test]
fn a_head_in_two_parts_is_waited_for() {
    let origin = Origin::of(([10, 0, 0, 7], 999).into(), false);
    for end in 0..GET.len() {
        let mut out = Vec::new();
        assert_eq!(request(&GET.as_bytes()[..end], &origin, &mut out), Ok(None));
        assert!(out.is_empty());
    }
}

#[test]
fn bodies_of_answers_end_where_the_standard_says() {
    let body =
        |text: &str, request: &str| answered(text, request).map(|a| (a.0.body, a.0.keep_alive));
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(body(length, GET), Ok((Framing::Length(5), true)));
    assert_eq!(body(length, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"), Ok((Framing::EMPTY, true)));
    let none = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(body(none, GET), Ok((Framing::EMPTY, true)));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n", GET), Ok((Framing::UntilEnd, false)));
    assert_eq!(
        body("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", GET),
        Ok((Framing::Length(1), false))
    );
    assert_eq!(body("HTTP/1.1 2x0 OK\r\n\r\n", GET), Err(Nonsense));
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (answered, out) = answered(both, GET).unwrap();
    assert_eq!(answered.body, Framing::CHUNKED);
    assert_eq!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn old_clients_get_what_they_understand() {
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let (_, out) = answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", old).unwrap();
    assert_eq!(out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
    let (_, out) = answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old).unwrap();
    assert_eq!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
}

#[test]
fn an_upgrade_travels() {
    let socket = "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (asked, out) = asked(socket).unwrap();
    assert!(asked.upgrade);
    assert!(out.ends_with("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), "{out}");
    let text =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    assert_eq!(answered(text, socket).unwrap().1, text);
}
