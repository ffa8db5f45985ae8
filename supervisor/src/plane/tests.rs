//! Whole connections through the data plane, with applications that misbehave as told.
//!
//! They need root, for the data plane enters network namespaces (here: its own).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use minisup_core::instance::Route;
use minisup_core::name::{InstanceId, ServiceName};
use minisup_core::state::Routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::balance::{Balance, ProxyVersion};
use crate::model::Protocol;

/// A service whose one instance is an application of this process, at `port`.
struct Stage {
    table: Rc<Table>,
    at: SocketAddr,
    id: InstanceId,
    term: Rc<Term>,
    port: Rc<Port>,
}

impl Stage {
    async fn new(port: u16, protocol: Protocol, rules: Balance) -> Stage {
        Stage::with_places(port, protocol, rules, None).await
    }

    async fn with_places(
        port: u16,
        protocol: Protocol,
        rules: Balance,
        places: Option<usize>,
    ) -> Stage {
        let (reports, outbox) = mpsc::unbounded_channel();
        std::mem::forget(outbox);
        let table = Rc::new(Table::new(reports, std::env::temp_dir()));
        table.rule("web", rules);
        let id = ServiceName::from("web").slot(1).instance(1);
        let own = crate::netns::of_process(std::process::id().cast_signed()).unwrap();
        table.add_endpoint(id.clone(), own, BTreeMap::new());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let publish = Publish { host: at, among: None, ipv6_too: false, port, protocol };
        let (service, term) = (table.service("web"), Rc::<Term>::default());
        let places = places.map(|places| Arc::new(Semaphore::new(places)));
        let (published, greets) = (true, Cell::default());
        let port = Port { service, publish, published, term: term.clone(), places, greets };
        let port = Rc::new(port);
        tokio::task::spawn_local(listen::accept(listener, port.clone()));
        let stage = Stage { table, at, id, term, port };
        stage.route(1, Route::Active);
        stage
    }

    fn route(&self, generation: u64, route: Route) {
        self.route_all(generation, route, &[&self.id]);
    }

    fn route_all(&self, generation: u64, route: Route, all: &[&InstanceId]) {
        let routes = all.iter().map(|id| ((*id).clone(), route)).collect();
        let services = BTreeMap::from([(ServiceName::from("web"), routes)]);
        self.table.follow(&Routes { generation, services });
    }

    /// Sends that, and reads until the end.
    async fn say(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // a reset is an end
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// An application: for each connection, what it answers to what it has read; nothing is a death.
async fn application(
    answer: impl Fn(u32, &str) -> Option<String> + Clone + 'static,
) -> (u16, Rc<AtomicU32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Rc::new(AtomicU32::new(0));
    let seen = count.clone();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (answer.clone(), seen.clone());
            tokio::task::spawn_local(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    let number = seen.fetch_add(1, Ordering::Relaxed);
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let Some(answer) = answer(number, &text) else { return };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (port, count)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn on_this_thread(work: impl Future<Output = ()>) {
    LocalSet::new().run_until(work).await;
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test]
#[ignore = "needs root"]
async fn what_is_safe_is_repeated_and_nothing_else() {
    on_this_thread(async {
        let keyed = POST.replace("Host", "Idempotency-Key: 7\r\nHost");
        let lenient = Balance { retry_unsafe: true, ..Balance::default() };
        let never = Balance { retries: 0, ..Balance::default() };
        for (request, rules, status, times) in [
            (GET, Balance::default(), "200", 2),
            (POST, Balance::default(), "502", 1),
            (&keyed, Balance::default(), "200", 2),
            (POST, lenient, "200", 2),
            (GET, never, "502", 1),
        ] {
            // It dies with the first request and answers the second.
            let (port, seen) = application(|number, _| (number > 0).then(|| ok("done"))).await;
            let stage = Stage::new(port, Protocol::Http, rules).await;
            let answer = stage.say(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert_eq!(seen.load(Ordering::Relaxed), times, "{request}");
        }
    })
    .await;
}

/// Each connection answers once, and closes as the next request comes: the worst moment.
#[tokio::test]
#[ignore = "needs root"]
async fn what_cannot_be_repeated_goes_on_a_fresh_connection() {
    on_this_thread(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Rc::new(Cell::new(0));
        let counted = connections.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                tokio::task::spawn_local(async move {
                    let _ = stream.read(&mut [0; 1 << 12]).await;
                    let _ = stream.write_all(ok("once").as_bytes()).await;
                    let _ = stream.read(&mut [0; 1 << 12]).await;
                });
            }
        });
        let stage = Stage::new(port, Protocol::Http, Balance::default()).await;
        for (request, count) in [(POST, 1), (POST, 2), (GET, 3)] {
            let answer = stage.say(request).await;
            assert!(answer.ends_with("once"), "{request}: {answer}");
            assert_eq!(connections.get(), count, "{request}");
            tokio::time::sleep(http::FRESH + Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A killed process keeps its listening socket until the kernel has taken it apart, and takes
/// connections that nobody will serve.
#[tokio::test]
#[ignore = "needs root"]
async fn a_dying_instance_is_given_time() {
    on_this_thread(async {
        let dead_until = std::time::Instant::now() + Duration::from_millis(600);
        let answer = move |_, _: &str| (std::time::Instant::now() > dead_until).then(|| ok("new"));
        let (port, _) = application(answer).await;
        let stage = Stage::new(port, Protocol::Http, Balance::default()).await;
        let answer = stage.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    })
    .await;
}

/// On a machine that is too busy every instance looks dead.
#[tokio::test]
#[ignore = "needs root"]
async fn when_all_are_slow_the_answer_is_waited_for() {
    on_this_thread(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Rc::new(Cell::new(0));
        let counted = seen.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.set(counted.get() + 1);
                tokio::task::spawn_local(async move {
                    let _ = stream.read(&mut [0; 1 << 12]).await;
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    let _ = stream.write_all(ok("at last").as_bytes()).await;
                });
            }
        });
        let stage = Stage::new(port, Protocol::Http, Balance::default()).await;
        let second = ServiceName::from("web").slot(2).instance(1);
        let own = crate::netns::of_process(std::process::id().cast_signed()).unwrap();
        stage.table.add_endpoint(second.clone(), own, BTreeMap::new());
        stage.route_all(2, Route::Suspect, &[&stage.id, &second]);
        let answer = stage.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("at last"), "{answer}");
        assert_eq!(seen.take(), 1, "as long as no probe has failed it is waited for");
        stage.route_all(3, Route::Failing, &[&stage.id, &second]);
        let answer = stage.say(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("at last"), "{answer}");
        // The first, and two others before the third was given its time.
        assert_eq!(seen.get(), 1 + turn::MOST_LEFT);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_request_waits_for_an_instance_and_the_queue_has_an_end() {
    on_this_thread(async {
        let (port, _) = application(|_, _| Some(ok("late"))).await;
        let rules = Balance { queue_size: 1, ..Balance::default() };
        let stage = Stage::new(port, Protocol::Http, rules).await;
        stage.route(2, Route::Draining);
        let waiting = stage.say(GET);
        let mut waiting = std::pin::pin!(waiting);
        let service = stage.table.service("web");
        while service.waiting.get() == 0 {
            tokio::select! {
                answer = &mut waiting => panic!("it was answered: {answer}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let refused = stage.say(GET).await;
        assert!(
            refused.starts_with("HTTP/1.1 503") && refused.contains("Retry-After"),
            "{refused}"
        );
        stage.route(3, Route::Active);
        assert!(waiting.await.ends_with("late"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn bodies_pass_in_every_framing() {
    on_this_thread(async {
        let long = "x".repeat(300_000);
        let copy = long.clone();
        let (port, _) = application(move |_, asked| {
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
            Some(match asked.split(' ').nth(1) {
                Some("/long") => ok(&copy),
                Some("/chunks") => chunked.to_string(),
                _ => ok(&format!("{:?}", asked.split_once("\r\n\r\n").map(|parts| parts.1))),
            })
        })
        .await;
        let stage = Stage::new(port, Protocol::Http, Balance::default()).await;
        let get = |path: &str| GET.replace("GET /", &format!("GET {path}"));
        assert!(stage.say(&get("/long")).await.ends_with(&long));
        assert!(
            stage.say(&get("/chunks")).await.ends_with("\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        );
        let old = stage.say("GET /chunks HTTP/1.0\r\n\r\n").await;
        assert!(old.ends_with("\r\n\r\nabcde"), "no chunks for old clients: {old}");
        assert!(stage.say(POST).await.ends_with("Some(\"hi\")"));
        let chunks = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                      Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        assert!(stage.say(chunks).await.contains("2\\r\\nhi"), "passed on as it was framed");
        // Two requests in one write, the second behind the body of the first.
        let both = format!("{}{GET}", POST.replace("Connection: close\r\n", ""));
        assert_eq!(stage.say(&both).await.matches("HTTP/1.1 200").count(), 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn the_proxy_protocol_names_the_client_on_both_sides() {
    on_this_thread(async {
        let (port, _) = application(|_, asked| Some(ok(asked.lines().next().unwrap_or("")))).await;
        let rules = Balance {
            accept_proxy: true,
            send_proxy: Some(ProxyVersion::V1),
            ..Balance::default()
        };
        let stage = Stage::new(port, Protocol::Http, rules).await;
        let from = "PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\n";
        let answer = stage.say(&format!("{from}{GET}")).await;
        assert!(answer.contains("PROXY TCP4 192.0.2.7 127.0.0.1 4711"), "{answer}");
        assert_eq!(stage.say(GET).await, "", "without it nobody is served");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn http2_clients_and_bytes_reach_the_same_application() {
    on_this_thread(async {
        let (port, _) = application(|_, asked| Some(ok(&asked.replace("\r\n", "|")))).await;
        let stage = Stage::new(port, Protocol::Auto, Balance::default()).await;
        let stream = TcpStream::connect(stage.at).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let shaken = hyper::client::conn::http2::handshake(executor, io).await;
        let (mut sender, connection) = shaken.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("http://name/a?b");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.starts_with("GET /a?b HTTP/1.1|"), "{text}");
        assert!(text.contains("host: name|") && text.contains("x-forwarded-for: 127.0.0.1|"));
        let mut bytes = TcpStream::connect(stage.at).await.unwrap();
        bytes.write_all(b"\x01binary").await.unwrap();
        let mut head = [0; 15];
        bytes.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK", "passed on as they are");
        let counted = stage.table.backend(&stage.id).unwrap().traffic(std::time::Instant::now());
        assert_eq!(counted.requests, 2);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn an_application_that_speaks_http2_is_spoken_to_so() {
    on_this_thread(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = |request: hyper::Request<hyper::body::Incoming>| async move {
            let text = format!("{:?} {}", request.version(), request.uri().path());
            let body = http_body_util::Full::new(bytes::Bytes::from(text));
            Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
        };
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let io = hyper_util::rt::TokioIo::new(stream);
                let serve = hyper::server::conn::http2::Builder::new(Local)
                    .serve_connection(io, hyper::service::service_fn(answer));
                tokio::task::spawn_local(async move { serve.await.ok() });
            }
        });
        let stage = Stage::new(port, Protocol::H2c, Balance::default()).await;
        let stream = TcpStream::connect(stage.at).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let shaken = hyper::client::conn::http2::handshake(Local, io).await;
        let (mut sender, connection) = shaken.unwrap();
        let connection = tokio::task::spawn_local(async move { connection.await.ok() });
        for _ in 0..3 {
            let request = hyper::Request::get("http://name/a");
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
            assert_eq!(&body.to_bytes()[..], b"HTTP/2.0 /a");
        }
        let counted = stage.table.backend(&stage.id).unwrap().traffic(std::time::Instant::now());
        assert_eq!(counted.requests, 3);
        stage.term.end();
        connection.await.expect("the connection ends, for the client to make another one");
    })
    .await;
}

/// Whoever takes over takes what comes; what is under way is finished here.
#[tokio::test]
#[ignore = "needs root"]
async fn at_the_end_of_a_term_connections_end_with_an_answer() {
    on_this_thread(async {
        let (port, _) = application(|_, _| Some(ok("done"))).await;
        let http = Stage::new(port, Protocol::Http, Balance::default()).await;
        let keep = GET.replace("Connection: close\r\n", "");
        let mut stream = TcpStream::connect(http.at).await.unwrap();
        let mut buffer = vec![0; 1 << 12];
        for is_over in [false, true] {
            if is_over {
                http.term.end();
            }
            stream.write_all(keep.as_bytes()).await.unwrap();
            let length = stream.read(&mut buffer).await.unwrap();
            let answer = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
            assert!(answer.starts_with("http/1.1 200"), "{answer}");
            assert_eq!(answer.contains("connection: close"), is_over, "{answer}");
        }
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "the end");

        // Nobody knows where what is not HTTP could be cut.
        let bytes = Stage::new(port, Protocol::Tcp, Balance::default()).await;
        let mut stream = TcpStream::connect(bytes.at).await.unwrap();
        for is_over in [false, true] {
            if is_over {
                bytes.term.end();
            }
            stream.write_all(b"anything").await.unwrap();
            assert!(stream.read(&mut buffer).await.unwrap() > 0, "over: {is_over}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn where_places_end_the_next_one_waits() {
    on_this_thread(async {
        let (port, _) = application(|_, _| Some("here".into())).await;
        let stage = Stage::with_places(port, Protocol::Tcp, Balance::default(), Some(1)).await;
        let mut buffer = [0; 16];
        let mut first = TcpStream::connect(stage.at).await.unwrap();
        first.write_all(b"x").await.unwrap();
        assert_eq!(first.read(&mut buffer).await.unwrap(), 4);
        let mut second = TcpStream::connect(stage.at).await.unwrap();
        second.write_all(b"x").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut buffer));
        assert!(early.await.is_err(), "there is one place");
        drop(first);
        assert_eq!(second.read(&mut buffer).await.unwrap(), 4, "it is free again");
    })
    .await;
}

/// A database says hello; what is told of a port lasts until a client is the first to speak.
#[tokio::test]
#[ignore = "needs root"]
async fn a_server_that_greets_is_remembered() {
    on_this_thread(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let greets = Rc::new(Cell::new(true));
        let greeting = greets.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if !greeting.get() {
                    stream.read_exact(&mut [0; 4]).await.unwrap();
                }
                stream.write_all(b"hello").await.unwrap();
            }
        });
        let stage = Stage::new(port, Protocol::Auto, Balance::default()).await;
        for known in [false, true] {
            assert_eq!(stage.port.greets.get(), known);
            assert_eq!(stage.say("").await, "hello");
        }
        greets.set(false);
        assert_eq!(stage.say("ping").await, "hello");
        let mut late = TcpStream::connect(stage.at).await.unwrap();
        tokio::time::sleep(listen::FIRST_BYTES * 2).await;
        late.write_all(b"ping").await.unwrap();
        assert_eq!(late.read(&mut [0; 8]).await.unwrap(), 5);
        assert!(!stage.port.greets.get());
    })
    .await;
}
