//! Tap: requests and byte streams as they end, for who may look: filtered in the proxy, without what is nobody's business, and
//! never in a request's way.

use super::streams::{call, say};
use super::world::*;
use http_body_util::BodyExt;
use mesh_api::admin::Direction;
use mesh_api::admin_http::{AdminError, Lines, follow};
use mesh_api::tap::{TapConnection, TapLine, TapRequest};
use mesh_policy::decide::Verdict;
use mesh_policy::request::Protocol;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

async fn open(world: &World, name: &str, query: &str) -> Result<Lines, AdminError> {
    let socket = world.path(&format!("{name}/admin.sock"));
    let mut lines = follow(&socket, &format!("/tap?{query}")).await?;
    assert_eq!(line(&mut lines).await, TapLine::Open);
    Ok(lines)
}

async fn line(lines: &mut Lines) -> TapLine {
    let line = timeout(Duration::from_secs(5), lines.next()).await;
    let line = line
        .expect("a line in time")
        .expect("no fault")
        .expect("a line");
    serde_json::from_slice(&line).expect("a line of tap")
}

async fn request(lines: &mut Lines) -> TapRequest {
    match line(lines).await {
        TapLine::Request(request) => *request,
        other => panic!("{other:?}"),
    }
}

async fn connection(lines: &mut Lines) -> TapConnection {
    match line(lines).await {
        TapLine::Connection(connection) => *connection,
        other => panic!("{other:?}"),
    }
}

async fn ask(to: SocketAddr, line: &str, headers: &str) -> String {
    let request = format!("{line} HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n{headers}\r\n");
    raw(to, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_with_identity_and_decision_and_without_secrets() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let mut cart = open(&world, "cart", "").await.expect("a tap");
    let mut web = open(&world, "web", "").await.expect("a tap");
    let secrets = "Authorization: Bearer hush\r\nCookie: hush\r\nX-Api-Key: hush\r\nUser-Agent: test\r\nX-Request-Id: 7\r\n";
    let answer = ask(world.web_to_cart(), "GET /items?token=hush", secrets).await;
    assert_eq!(status(&answer), "200");
    let (inside, outside) = (request(&mut cart).await, request(&mut web).await);
    assert_eq!(
        (inside.direction, outside.direction),
        (Direction::Inbound, Direction::Outbound)
    );
    for told in [&inside, &outside] {
        assert_eq!(
            (told.method.as_str(), told.path.as_str(), told.status),
            ("GET", "/items", Some(200))
        );
        let names: Vec<_> = told.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["user-agent", "x-request-id"]);
        assert!(!serde_json::to_string(told).expect("JSON").contains("hush"));
    }
    let client = inside.client.expect("a client");
    assert_eq!(client.spiffe_id.expect("its identity").as_str(), WEB);
    let decision = inside.decision.expect("a decision");
    assert_eq!(decision.verdict, Verdict::Allow);
    assert_eq!(decision.reason, "AuthorizationPolicy/shop/callers/0");
    assert_eq!(decision.server.as_deref(), Some("shop/cart-http"));
    assert_eq!(
        (inside.workload.as_str(), inside.target.as_str()),
        ("shop/cart", "8080")
    );
    assert_eq!(outside.server.expect("who answers").as_str(), CART);
    assert!(outside.decision.is_none());
}

/// A tap of `cart`, once there is a place.
async fn free(world: &World, query: &str) -> Lines {
    for _ in 0..250 {
        match open(world, "cart", query).await {
            Ok(lines) => return lines,
            Err(AdminError::Refused { status: 429, .. }) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no place is free")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_filters() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let web = format!("from={WEB}&path=/b");
    for (query, want) in [
        ("verdict=deny", vec!["/plain"]),
        ("status=4", vec!["/plain"]),
        (web.as_str(), vec!["/b"]),
        ("method=PUT", vec!["/put"]),
        ("direction=outbound", vec![]),
        ("target=8081", vec![]),
        ("host=elsewhere", vec![]),
        ("protocol=grpc", vec![]),
        ("protocol=http&verdict=deny", vec!["/plain"]),
    ] {
        // Places of the round before are free once its readers were seen to be gone.
        let mut lines = free(&world, query).await;
        // A second one sees all, so that it is known when the first has seen all.
        let mut all = free(&world, "").await;
        ask(world.web_to_cart(), "GET /a", "").await;
        ask(world.web_to_cart(), "GET /b", "").await;
        ask(world.web_to_cart(), "PUT /put", "").await;
        ask(world.cart_plain(), "GET /plain", "").await;
        for _ in 0..4 {
            request(&mut all).await;
        }
        for path in want {
            assert_eq!(request(&mut lines).await.path, path, "{query}");
        }
        let more = timeout(Duration::from_millis(50), lines.next()).await;
        assert!(more.is_err(), "{query}: {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    for query in ["verdit=deny", "status=1000", "rate=100000", "from=web"] {
        let refused = open(&world, "cart", query).await;
        assert!(
            matches!(refused, Err(AdminError::Refused { status: 400, .. })),
            "{query}: {refused:?}"
        );
    }
    // Metrics and probes are for everybody; this is not.
    let answer = get(world.address(1, 15020), "/tap").await;
    assert_eq!(status(&answer), "404");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_few() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let mut open_now = Vec::new();
    for _ in 0..4 {
        open_now.push(open(&world, "cart", "").await.expect("a tap"));
    }
    let refused = open(&world, "cart", "").await;
    assert!(
        matches!(refused, Err(AdminError::Refused { status: 429, .. })),
        "{refused:?}"
    );
    open_now.pop();
    eventually("a place is free again", async || {
        open(&world, "cart", "").await.is_ok()
    })
    .await;
}

/// All that is told, and all that is said to be missing, until nothing more comes.
async fn rest(lines: &mut Lines) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    while let Ok(Ok(Some(line))) = timeout(Duration::from_millis(2_500), lines.next()).await {
        match serde_json::from_slice(&line).expect("a line of tap") {
            TapLine::Request(_) | TapLine::Connection(_) => sums.0 += 1,
            TapLine::Missed {
                over_rate,
                slow_reader,
            } => {
                sums.1 += over_rate;
                sums.2 += slow_reader;
            }
            TapLine::Open | TapLine::Idle => {}
        }
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_rate_requests_are_counted_and_not_told() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = prompt(world.cart_app()).await;
    let mut lines = open(&world, "cart", "rate=2").await.expect("a tap");
    many(&world, 200, "").await;
    // Nothing comes that could bring word of what was missed: it is told all the same.
    let (told, over_rate, slow_reader) = rest(&mut lines).await;
    assert_eq!((told + over_rate, slow_reader), (200, 0));
    assert!((2..100).contains(&told), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hears_nothing_is_told_so() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let mut lines = open(&world, "cart", "").await.expect("a tap");
    let first = timeout(Duration::from_secs(20), lines.next()).await;
    let first = first.expect("a word").expect("no fault").expect("a line");
    let first: TapLine = serde_json::from_slice(&first).expect("a line of tap");
    assert_eq!(first, TapLine::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_streams_are_told_with_identity_decision_and_bytes() {
    let world = World::of_bytes(&cart_policy("opaque", &[WEB]));
    let _app = echo(world.cart_app()).await;
    let mut cart = open(&world, "cart", "").await.expect("a tap");
    let mut web = open(&world, "web", "protocol=tcp").await.expect("a tap");
    // What only requests have is said of no byte stream.
    let mut requests = open(&world, "cart", "path=/").await.expect("a tap");
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    stream.write_all(b"hello").await.expect("room");
    stream.shutdown().await.expect("half-close");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.expect("the echo");
    let (inside, outside) = (connection(&mut cart).await, connection(&mut web).await);
    for told in [&inside, &outside] {
        assert_eq!((told.from_client_bytes, told.to_client_bytes), (5, 5));
        assert_eq!(told.failure, None);
    }
    let client = inside.client.expect("a client");
    assert_eq!(client.spiffe_id.expect("its identity").as_str(), WEB);
    let decision = inside.decision.expect("a decision");
    assert_eq!(decision.verdict, Verdict::Allow);
    assert_eq!(decision.reason, "AuthorizationPolicy/shop/callers/0");
    assert_eq!(outside.server.expect("who answers").as_str(), CART);
    let more = timeout(Duration::from_millis(50), requests.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_stream_that_is_denied_is_told_and_a_probe_is_not() {
    let world = World::of_bytes(&cart_policy("unknown", &[]));
    let _app = echo(world.cart_app()).await;
    let mut lines = open(&world, "cart", "").await.expect("a tap");
    drop(TcpStream::connect(world.cart_plain()).await);
    assert_eq!(raw(world.web_to_cart(), b"hello").await, "");
    let denied = connection(&mut lines).await;
    let client = denied.client.expect("a client");
    assert_eq!(client.spiffe_id.expect("its identity").as_str(), WEB);
    let decision = denied.decision.expect("a decision");
    assert_eq!(decision.reason, "no-grant");
    assert_eq!((denied.from_client_bytes, denied.to_client_bytes), (0, 0));
    let more = timeout(Duration::from_millis(50), lines.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_in_two_ways_is_told_as_refused_and_without_its_query() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let mut cart = open(&world, "cart", "verdict=deny").await.expect("a tap");
    let mut web = open(&world, "web", "verdict=deny").await.expect("a tap");
    // Refused as bytes, before any library sees it.
    let bytes = "GET TARGET HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx";
    // Refused once it is a request.
    let headers = "Host: elsewhere\r\n";
    for (to, lines) in [
        (world.cart_plain(), &mut cart),
        (world.web_to_cart(), &mut web),
    ] {
        for (target, path, host) in [
            ("/a?token=hush", "/a", None),
            ("http://user:hush@cart/a?hush", "/a", Some("cart")),
        ] {
            let bytes = bytes.replace("TARGET", target);
            assert_eq!(status(&raw(to, bytes.as_bytes()).await), "400");
            let refused = request(lines).await;
            let text = serde_json::to_string(&refused).expect("JSON");
            assert!(!text.contains("hush") && !text.contains("user:"), "{text}");
            assert_eq!(
                (refused.method.as_str(), refused.path.as_str()),
                ("GET", path),
                "{target}"
            );
            assert_eq!((refused.host.as_deref(), refused.status), (host, Some(400)));
            let decision = refused.decision.expect("a decision");
            assert_eq!(
                (decision.verdict, decision.phase.as_str()),
                (Verdict::Deny, "request")
            );
        }
        assert_eq!(status(&ask(to, "GET /b?token=hush", headers).await), "400");
        let refused = request(lines).await;
        assert_eq!((refused.path.as_str(), refused.status), ("/b", Some(400)));
        assert_eq!(refused.decision.expect("a decision").phase, "request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_body_is_refused_later_is_told_once() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = mirror(world.cart_app()).await;
    let mut web = open(&world, "web", "").await.expect("a tap");
    let mut stream = TcpStream::connect(world.web_to_cart())
        .await
        .expect("a connection");
    let head = b"POST /c HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    stream.write_all(head).await.expect("sent");
    // Its head has gone on by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.write_all(b"lo\n").await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    drop(stream);
    assert_eq!(request(&mut web).await.path, "/c");
    let more = timeout(Duration::from_millis(300), web.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_told_with_its_own_status() {
    let world = World::running(&cart_policy("gRPC", &[WEB]));
    say(world.cart_app()).await;
    let mut lines = open(&world, "cart", "protocol=grpc").await.expect("a tap");
    let response = call(world.web_to_cart(), "/say.Say/Once").await;
    response.into_body().collect().await.expect("the body");
    let allowed = request(&mut lines).await;
    assert_eq!(
        (allowed.protocol, allowed.path.as_str()),
        (Protocol::Grpc, "/say.Say/Once")
    );
    assert_eq!(
        (allowed.status, allowed.grpc_status),
        (Some(200), Some(0)),
        "from its trailers"
    );
    assert_eq!(
        grpc_code(world.cart_plain(), None).await.as_deref(),
        Some("7")
    );
    let denied = request(&mut lines).await;
    assert_eq!(denied.grpc_status, Some(7), "from its head");
    assert_eq!(denied.decision.expect("a decision").verdict, Verdict::Deny);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_costs_no_request() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = prompt(world.cart_app()).await;
    let mut lines = open(&world, "cart", "rate=1000").await.expect("a tap");
    let mut took = Duration::ZERO;
    for _ in 0..6 {
        took += many(&world, 800, "").await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }
    assert!(took < Duration::from_secs(20), "{took:?}");
    let (told, over_rate, slow_reader) = rest(&mut lines).await;
    assert!(
        slow_reader > 0,
        "{told} told, {over_rate} over the rate, {slow_reader} not read"
    );
}

/// `mesh-proxy tap` beside the proxy of `cart`, as it is run in a container from elsewhere.
fn command(world: &World, query: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
        .arg("tap")
        .arg("--config")
        .arg(world.path("cart/proxy.yaml"))
        .args(["--until-stdin-ends", query])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("mesh-proxy runs")
}

/// The next line that a command prints.
async fn next(printed: &mut tokio::io::Lines<BufReader<ChildStdout>>) -> TapLine {
    let line = timeout(Duration::from_secs(20), printed.next_line()).await;
    let line = line.expect("a line in time").expect("its output");
    serde_json::from_str(&line.expect("a line")).expect("a line of tap")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_ends_with_its_input_though_nobody_reads_it() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let _app = prompt(world.cart_app()).await;
    let mut tap = command(&world, "rate=1000");
    let printed = tap.stdout.take().expect("its output");
    // The first line says that it is there; from here on nobody reads.
    let mut printed = BufReader::with_capacity(1, printed).lines();
    assert_eq!(next(&mut printed).await, TapLine::Open);
    // Lines of about 1.2 KiB: twice what a pipe holds.
    let long = "x".repeat(250);
    let headers = format!("User-Agent: {long}\r\nX-Request-Id: {long}\r\nContent-Type: {long}\r\n");
    many(&world, 128, &headers).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(tap.try_wait().expect("a status").is_none());
    drop(tap.stdin.take());
    let ended = timeout(Duration::from_secs(5), tap.wait()).await;
    let ended = ended.expect("it outlives who asked").expect("a status");
    assert!(ended.success(), "{ended}");
    drop(printed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_lines_until_its_input_ends() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let mut tap = command(&world, "verdict=deny");
    let mut printed = BufReader::new(tap.stdout.take().expect("its output")).lines();
    assert_eq!(next(&mut printed).await, TapLine::Open);
    ask(world.cart_plain(), "GET /plain", "").await;
    match next(&mut printed).await {
        TapLine::Request(told) => assert_eq!(told.path, "/plain"),
        other => panic!("{other:?}"),
    }
    drop(tap.stdin.take());
    let ended = timeout(Duration::from_secs(5), tap.wait()).await;
    let ended = ended.expect("it outlives who asked").expect("a status");
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_why_nothing_is_told() {
    let world = World::running(&cart_policy("HTTP/1", &[WEB]));
    let mut tap = command(&world, "verdit=deny");
    // Held: with its input the command ends, whatever it has to say.
    let input = tap.stdin.take();
    let output = tap.wait_with_output();
    let output = timeout(Duration::from_secs(20), output).await;
    let output = output.expect("an end").expect("its output");
    drop(input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("MESH-0823") && said.contains("verdit"),
        "{said}"
    );
}

/// `web` asks the admin port of `cart` over the mesh; `cart` lets `named` look.
async fn remote(named: &[&str]) -> (World, TcpStream) {
    remote_for(named, Duration::from_secs(3_600)).await
}

/// The same with an SVID of `web` that is valid for so long.
async fn remote_for(named: &[&str], lifetime: Duration) -> (World, TcpStream) {
    let mut world = World::new(&cart_policy("HTTP/1", &[WEB]));
    let list: Vec<_> = named.iter().map(|id| format!("\"{id}\"")).collect();
    if !named.is_empty() {
        world.traces = format!("tap: {{ identities: [{}] }}\n", list.join(", "));
    }
    world.start_cart();
    world.traces = String::new();
    world.write_svid("web", &world.authority.svid_for(WEB, lifetime));
    let (mesh, tap, remote) = (
        world.address(11, 15008),
        world.address(20, 8001),
        world.cart_mesh(),
    );
    let parts = format!(
        "inbound:\n  mesh: {mesh}\noutbound:\n- {{ listen: \"{tap}\", endpoints: [{{ proxy: \"{remote}\", port: 15020, identity: \"{CART}\" }}] }}\n"
    );
    world.start("web", &parts, world.address(11, 15020));
    let mut stream = TcpStream::connect(tap).await.expect("a connection");
    stream
        .write_all(b"GET /tap?verdict=deny HTTP/1.1\r\nHost: cart\r\n\r\n")
        .await
        .expect("sent");
    (world, stream)
}

async fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains(what) {
            if !matches!(stream.read_buf(&mut text).await, Ok(n) if n > 0) {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), read).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_named_may_look_from_elsewhere() {
    let (world, mut stream) = remote(&[CART, WEB]).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status(&head), "200", "{head}");
    ask(world.cart_plain(), "GET /plain", "").await;
    let lines = read_until(&mut stream, "\"verdict\"").await;
    assert!(
        lines.contains("/plain") && lines.contains("\"verdict\":\"deny\""),
        "{lines}"
    );
    // Nothing but that.
    let mut other = TcpStream::connect(world.address(20, 8001))
        .await
        .expect("a connection");
    other
        .write_all(b"GET /snapshot HTTP/1.1\r\nHost: cart\r\n\r\n")
        .await
        .expect("sent");
    assert_eq!(status(&read_until(&mut other, "\r\n\r\n").await), "404");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may() {
    for named in [&[][..], &[CART]] {
        let (_world, mut stream) = remote(named).await;
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(
            ["502", "503"].contains(&status(&answer)),
            "{named:?}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_longer_trusted_no_longer_looks() {
    let (world, mut stream) = remote_for(&[WEB], Duration::from_secs(4)).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status(&head), "200", "{head}");
    // The end of what is told, or of the connection.
    let mut told = Vec::new();
    let end = async {
        while !told.ends_with(b"0\r\n\r\n") {
            if !matches!(stream.read_buf(&mut told).await, Ok(1..)) {
                break;
            }
        }
    };
    let ended = timeout(Duration::from_secs(9), end).await;
    assert!(ended.is_ok(), "the tap outlived the certificate");
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_holds_no_proxy_back_that_ends() {
    let (mut world, mut stream) = remote(&[WEB]).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(status(&head), "200", "{head}");
    let _beside = open(&world, "cart", "").await.expect("a tap");
    let began = std::time::Instant::now();
    // Servers first: `cart` must not wait until `web` hangs up.
    tokio::task::spawn_blocking(move || world.stop_servers_first())
        .await
        .expect("an end");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?} of the five seconds for what runs",
        began.elapsed()
    );
}
