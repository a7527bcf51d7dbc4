//! One function per decoder that reads what a stranger wrote. Each takes any bytes, must return soon, and panics if the
//! decoder panics or breaks a promise that is stated beside it. Two more make policies of the bytes and compare those who
//! evaluate them.
//!
//! A new decoder gets a function here, a line in [`TARGETS`], a file in `fuzz_targets/` and seeds in `seeds/<name>/`.

use mesh_api::proto::{DiscoverySlice, DiscoveryUpdate};
use mesh_api::slices::{Encoded, Receiver, SLICES, Slice, Slices, joined};
use mesh_audits::line::{Line, Parts};
use mesh_audits::redact::{self, Redactable};
use mesh_compliance::bundle as snapshot;
use mesh_compliance::{framework, report};
use mesh_issuance::ceremony::shares::Share;
use mesh_issuance::signing::{Answer, LENGTH_BYTES, Question};
use mesh_policy::canonical;
use mesh_policy::decide::Generation;
use mesh_policy::request::RequestRecord;
use mesh_policy::snapshot::{Effect, PathOptions, Severity};
use mesh_policy_index::import::{self, CustomAction, ImportConfig, LinkerdConfig};
use mesh_policy_index::{Index, IndexConfig, WorkloadKey, manifest};
use mesh_proxy_core::detect::{self, DetectPolicy, Detection, Detector};
use mesh_proxy_core::http_hygiene::wire::{GuardLimits, Http1Guard, Refused, Stop};
use mesh_proxy_core::http1::reader::{BodyPart, RequestReader};
use mesh_proxy_core::http1::response::{Part, ResponseError, ResponseLimits, ResponseReader};
use mesh_proxy_core::mesh_header;
use mesh_proxy_core::mux::{self, Engine, Event, MuxError, Role, Taken};
use mesh_tlog::witness::AddCheckpoint;
use mesh_tlog::{
    Note, Tile, TlogProof, TreeHead, VerifierKey, bundle, leaf_hash, verify_inclusion,
};
use mesh_trust::bundle::WholeBundle;
use mesh_trust::{SpiffeId, Svid, TrustBundle, TrustBundles, TrustDomain};

/// A target: its name, which is that of its seeds' directory, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, for the smoke run.
pub const TARGETS: &[Target] = &[
    ("spiffe_id", spiffe_id),
    ("svid_der", svid_der),
    ("bundle_json", bundle_json),
    ("manifest_yaml", manifest_yaml),
    ("cedar_text", cedar_text),
    ("import", import),
    ("request_record", request_record),
    ("canonical_path", canonical_path),
    ("canonical_host", canonical_host),
    ("detect", detect),
    ("mesh_header", mesh_header),
    ("mux", mux),
    ("http1_response", http1_response),
    ("http1_request", http1_request),
    ("audit_line", audit_line),
    ("signer_words", signer_words),
    ("ceremony_share", ceremony_share),
    ("snapshot_bundle", snapshot_bundle),
    ("mapping", mapping),
    ("discovery_slice", discovery_slice),
    ("checkpoint", checkpoint),
    ("residual_vs_cedar", residual_vs_cedar),
    ("decisions", decisions),
];

/// What a signer and its CA read of each other has one form: what is read is written again octet for octet.
pub fn signer_words(data: &[u8]) {
    if let Ok(question) = Question::parse(data) {
        assert_eq!(question.to_frame().get(LENGTH_BYTES..), Some(data));
    }
    if let Ok(answer) = Answer::parse(data) {
        assert_eq!(answer.to_frame().get(LENGTH_BYTES..), Some(data));
    }
}

/// A slice of discovery, behind its number: what is taken is written as it was read, and all in it is found where it is
/// looked for; of two pods at one address the one in the mesh.
pub fn discovery_slice(data: &[u8]) {
    let Some((number, json)) = data.split_first_chunk() else {
        return;
    };
    let number = u16::from_be_bytes(*number);
    let message = DiscoveryUpdate {
        slices: vec![DiscoverySlice {
            number: number.into(),
            json: json.to_vec().into(),
        }],
        digest: Vec::new(),
    };
    let taken = Receiver::new(Slices::default()).take(&message);
    let slice = match Slice::read(number, json) {
        Ok(slice) if number < SLICES => slice,
        Ok(_) => return assert!(taken.is_err(), "there is no such slice"),
        Err(_) => return assert!(taken.is_err() || json.is_empty(), "it cannot be read"),
    };
    assert!(
        taken.expect("a slice").is_none(),
        "nothing is whole without a digest"
    );
    if let Some(written) = Encoded::of(&slice) {
        let again = Slice::read(number, &written.json).expect("what was written");
        assert_eq!(again, slice);
    }
    let all = Slices::from(joined(std::iter::once(slice.clone())));
    for service in &slice.services {
        let found = all.service(&service.namespace, &service.name, service.port);
        assert_eq!(found.map(|found| found.port), Some(service.port));
    }
    for pod in &slice.pods {
        let found = all.pod(pod.ip).expect("a pod");
        assert!(found.identity.is_some() || pod.identity.is_none());
    }
}

/// A share that is read is written as it was, but for the ends of its lines; and its numbers can be used.
pub fn ceremony_share(data: &[u8]) {
    let Ok(share) = Share::parse("fuzz", data) else {
        return;
    };
    let text = std::str::from_utf8(data).expect("a share is text");
    assert!(share.to_text().lines().eq(text.lines().map(str::trim_end)));
    share.set.check().expect("numbers that make shares");
    assert!((1..=share.set.shares).contains(&share.number));
}

/// What is accepted is the grammar of the standard, read here a second time, and prints as it was read.
pub fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = SpiffeId::parse(text);
    assert_eq!(
        parsed.is_ok(),
        text.len() <= 2_048 && is_spiffe_id(text),
        "{text:?}"
    );
    let Ok(id) = parsed else {
        // Nothing but the case of scheme and trust domain may differ in what configuration is allowed.
        if let Ok(id) = SpiffeId::parse_config(text) {
            assert!(id.as_str().eq_ignore_ascii_case(text));
        }
        return;
    };
    assert_eq!(id.as_str(), text);
    assert_eq!(SpiffeId::parse_config(text).as_ref(), Ok(&id));
    assert_eq!(
        TrustDomain::parse(id.trust_domain().as_str()).as_ref(),
        Ok(id.trust_domain())
    );
    if let Some((namespace, name)) = id.service_account() {
        let again = SpiffeId::for_service_account(id.trust_domain(), namespace, name);
        assert_eq!(again, Ok(id.clone()));
    }
}

/// SPIFFE-ID §2, slowly.
fn is_spiffe_id(text: &str) -> bool {
    let mut parts = match text.strip_prefix("spiffe://") {
        Some(rest) => rest.split('/'),
        None => return false,
    };
    let domain = parts.next().unwrap_or_default();
    let in_domain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let in_path = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (1..=255).contains(&domain.len())
        && domain.chars().all(in_domain)
        && parts.all(|part| !matches!(part, "" | "." | "..") && part.chars().all(in_path))
}

/// A leaf that passes has a canonical identity with a path, and is trusted by nobody who has no anchor.
/// Data is a leaf; after two zero bytes, an intermediate.
pub fn svid_der(data: &[u8]) {
    let cut = data
        .windows(4)
        .position(|window| window == [0, 0, 0x30, 0x82]);
    let chain = match cut.filter(|at| *at > 0) {
        Some(at) => vec![data[..at].to_vec().into(), data[at + 2..].to_vec().into()],
        None => vec![data.to_vec().into()],
    };
    let as_anchor = TrustDomain::parse("td").map(|td| TrustBundle::new(td, chain.clone()));
    drop(as_anchor);
    let Ok(svid) = Svid::parse(chain) else { return };
    assert_eq!(SpiffeId::parse(svid.id().as_str()).as_ref(), Ok(svid.id()));
    assert!(!svid.id().path().is_empty() && svid.not_before() <= svid.not_after());
    assert!(svid.serial().len() <= 40 && !svid.serial().is_empty());
    let domain = svid.id().trust_domain().clone();
    let nobody = TrustBundle::new(domain, Vec::new()).expect("no anchors is a bundle");
    assert!(
        TrustBundles::from(nobody)
            .verify(&svid, svid.not_before())
            .is_err()
    );
}

/// A bundle that is read survives being written and read again; so does a map of bundles.
pub fn bundle_json(data: &[u8]) {
    let domain = TrustDomain::parse("td").expect("a trust domain");
    if let Ok(bundle) = TrustBundle::from_json(domain.clone(), data) {
        let again = TrustBundle::from_json(domain.clone(), bundle.to_json().as_bytes());
        assert_eq!(again, Ok(bundle));
    }
    if let Ok(whole) = WholeBundle::from_json(domain.clone(), data) {
        let again = WholeBundle::from_json(domain.clone(), whole.to_json().as_bytes());
        assert_eq!(again, Ok(whole));
    }
    if let Ok(bundles) = TrustBundles::from_json(data) {
        assert_eq!(
            TrustBundles::from_json(bundles.to_json().as_bytes()),
            Ok(bundles)
        );
    }
    if let Ok(bundle) = TrustBundle::from_pem(domain.clone(), data) {
        let again = TrustBundle::from_pem(domain, bundle.to_pem().as_bytes());
        assert_eq!(again, Ok(bundle));
    }
}

/// Manifests never stop the reader; each mistake becomes a finding.
pub fn manifest_yaml(data: &[u8]) {
    let file = || vec![("fuzz.yaml".to_owned(), data.to_vec())];
    assert_eq!(
        manifest::load(file()).findings,
        manifest::load(file()).findings
    );
}

/// Whatever stands before it in the text of a CedarPolicy, a forbid at its end is never lost: it is there, or the text
/// closes its namespace. And nothing in the text is there twice.
pub fn cedar_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let meta = serde_json::json!({"name": "x", "namespace": "shop"});
    let api = "mesh.internal/v1alpha1";
    let text = format!("{text}\nforbid(principal, action, resource);");
    let objects = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": []}},
        {"apiVersion": api, "kind": "CedarPolicy", "metadata": meta, "spec": {"cedar": text}},
    ]});
    let files = [("fuzz.json".to_owned(), objects.to_string().into_bytes())];
    let domain = TrustDomain::parse("td").expect("a trust domain");
    let index = Index::build(&manifest::load(files), &IndexConfig::new(domain));
    let key = WorkloadKey {
        namespace: "shop".to_owned(),
        name: "x".to_owned(),
    };
    let snapshot = index.snapshot(&key, Generation::default());
    let Some(policies) = snapshot.map(|snapshot| snapshot.cedar_policies) else {
        // A control character makes the whole document unreadable, pod included.
        return;
    };
    assert!(
        policies.iter().any(|p| p.effect == Effect::Forbid),
        "{text:?}"
    );
    let ids: std::collections::BTreeSet<_> = policies.iter().map(|p| &p.id).collect();
    assert_eq!(ids.len(), policies.len(), "{text:?}");
}

/// What is imported is the same each time, and passes the checks of what people write.
pub fn import(data: &[u8]) {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let mut config = ImportConfig::new(domain.clone());
    config.custom = CustomAction::Deny;
    let files = [("fuzz.yaml".to_owned(), data.to_vec())];
    let _ = import::linkerd(&files, &LinkerdConfig::new(domain));
    let Ok(imported) = import::istio(&files, &config) else {
        return;
    };
    let again = import::istio(&files, &config).expect("the same input");
    assert_eq!(imported.files, again.files);
    assert_eq!(imported.report, again.report);
    let written = imported
        .files
        .iter()
        .map(|file| (file.name.clone(), file.text.clone().into_bytes()));
    let errors = manifest::load(written)
        .findings
        .into_iter()
        .filter(|f| f.severity == Severity::Error);
    assert_eq!(errors.collect::<Vec<_>>(), []);
}

/// A request record that is read survives being written and read again.
pub fn request_record(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<RequestRecord>(data) {
        let text = serde_json::to_vec(&record).expect("a record can be written");
        assert_eq!(
            serde_json::from_slice::<RequestRecord>(&text).expect("own text"),
            record
        );
    }
}

/// A canonical path is its own canonical form, begins with a slash and has no dot segment.
pub fn canonical_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for options in [(false, false), (true, false), (false, true), (true, true)] {
        let options = PathOptions {
            keep_escapes: options.0,
            keep_parameters: options.1,
        };
        let Ok(path) = canonical::path(text, "GET", options) else {
            continue;
        };
        let path = path.as_str().to_owned();
        assert!(path.starts_with('/'), "{text:?} became {path:?}");
        let dotted = path.split('/').any(|segment| matches!(segment, "." | ".."));
        assert!(!dotted && !path.contains("//"), "{text:?} became {path:?}");
        let again = canonical::path(&path, "GET", options).map(|path| path.as_str().to_owned());
        assert_eq!(again.as_deref(), Ok(path.as_str()), "{text:?}");
    }
}

/// A canonical host is its own canonical form.
pub fn canonical_host(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(host) = canonical::host(text) {
        let again = canonical::host(host.name()).map(|again| again.name().to_owned());
        assert_eq!(again.as_deref(), Ok(host.name()), "{text:?}");
    }
}

/// However the bytes are cut into pieces, the answer is the same, and it is final. The first byte says how they are cut.
pub fn detect(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    let policy = DetectPolicy {
        tls: first & 0x80 != 0,
        bytes_max: 512,
    };
    let piece = usize::from(first & 0x7f).max(1);
    let whole = detect::classify(&policy, bytes);
    let mut detector = Detector::new(policy);
    let mut answer = Detection::NeedMore;
    for piece in bytes.chunks(piece) {
        let next = detector.push(piece);
        assert!(
            answer == Detection::NeedMore || answer == next,
            "an answer changed"
        );
        answer = next;
    }
    assert_eq!(answer, whole);
    assert_ne!(detector.on_timeout(), Detection::NeedMore);
}

/// A header that is read is, written again, the same bytes; cut into pieces it reads the same.
pub fn mesh_header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<{ mesh_header::LEN }>() else {
        return;
    };
    let whole = mesh_header::decode(bytes);
    if let Ok(header) = &whole {
        assert_eq!(mesh_header::encode(header), *bytes);
    }
    let mut decoder = mesh_header::Decoder::new();
    let mut done = None;
    for byte in bytes {
        match decoder.push(std::slice::from_ref(byte)) {
            Ok(mesh_header::Progress::NeedMore { .. }) => {}
            Ok(mesh_header::Progress::Done { header, .. }) => done = Some(header),
            Err(_) => break,
        }
    }
    assert_eq!(done, whole.ok());
}

/// Requests of a client, cut into pieces of some size: however they are cut they are read in one way, and as many are taken
/// as the guard lets pass, which refuses the others for the same reason.
pub fn http1_request(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let (whole, refused) = read_requests(&[bytes]);
    let pieces: Vec<_> = bytes.chunks(usize::from(*first) + 1).collect();
    let (cut, cut_refused) = read_requests(&pieces);
    assert_eq!(refused.map(|one| one.why), cut_refused.map(|one| one.why));
    let ended = |all: &[RequestSaid]| all.iter().filter(|one| one.3).cloned().collect::<Vec<_>>();
    assert_eq!(ended(&whole), ended(&cut));

    let mut guard = Http1Guard::new(REQUEST_LIMITS);
    let mut rest = bytes;
    let stop = loop {
        let reading = guard.push(rest);
        if reading.stop != Stop::Waiting {
            break reading.stop;
        }
        guard.resume(false);
        rest = rest.get(reading.clear..).unwrap_or_default();
    };
    assert_eq!(whole.len() as u64, guard.heads());
    assert_eq!(refused.map_or(Stop::End, Stop::Refused), stop);
}

const REQUEST_LIMITS: GuardLimits = GuardLimits {
    head_bytes_max: 64 * 1024,
    fields_max: 100,
};

/// Everything that a request says: its head, its body, its trailers, and whether it is all there.
type RequestSaid = (String, Vec<u8>, String, bool);

fn read_requests(pieces: &[&[u8]]) -> (Vec<RequestSaid>, Option<Refused>) {
    let mut reader = RequestReader::new(REQUEST_LIMITS);
    let (mut all, mut input) = (Vec::<RequestSaid>::new(), bytes::BytesMut::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            reader.resume();
            if reader.is_done() {
                match reader.head(&mut input) {
                    Ok(Some(head)) => all.push((
                        format!("{head:?}"),
                        Vec::new(),
                        String::new(),
                        reader.is_done(),
                    )),
                    Ok(None) => break,
                    Err(refused) => return (all, Some(refused)),
                }
                continue;
            }
            let last = all.last_mut().expect("it has begun");
            match reader.body(&mut input) {
                Ok(Some(BodyPart::Data(data))) => last.1.extend_from_slice(&data),
                Ok(Some(BodyPart::Trailers(fields))) => last.2 = format!("{fields:?}"),
                Ok(None) if !reader.is_done() => break,
                Ok(None) => {}
                Err(refused) => return (all, Some(refused)),
            }
            last.3 = reader.is_done();
        }
    }
    (all, None)
}

/// However it is cut, a response is read in one way; what is left over, and what was refused, is never used again.
/// Bit 0 of the first byte: the request was HEAD; bit 1: the connection closes at the end; the rest: length of the pieces.
pub fn http1_response(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else {
        return;
    };
    let (bodiless, closes) = (first & 1 == 1, first & 2 == 2);
    let whole = read_response(bodiless, closes, &[bytes]);
    let pieces: Vec<_> = bytes.chunks(usize::from(first >> 2) + 1).collect();
    assert_eq!(whole, read_response(bodiless, closes, &pieces));
}

/// Everything that a response says, or why it is refused.
type Said = (String, Vec<u8>, String, bool, Vec<u8>);

fn read_response(bodiless: bool, closes: bool, pieces: &[&[u8]]) -> Result<Said, ResponseError> {
    let limits = ResponseLimits {
        head_bytes_max: 64 * 1024,
        fields_max: 100,
    };
    let mut reader = ResponseReader::new(bodiless, limits);
    let (mut head, mut body, mut trailers) = (String::new(), Vec::new(), String::new());
    let mut input = bytes::BytesMut::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(Part::Head(parts))) => {
                    assert!(head.is_empty() && reader.has_begun());
                    assert!(!parts.status.is_informational() || parts.status.as_u16() == 101);
                    head = format!("{} {:?} {:?}", parts.status, parts.version, parts.headers);
                }
                Ok(Some(Part::Data(data))) => {
                    assert!(!head.is_empty() && !data.is_empty() && !bodiless);
                    body.extend_from_slice(&data);
                }
                Ok(Some(Part::Trailers(fields))) => trailers = format!("{fields:?}"),
                Ok(None) => break,
                Err(why) => {
                    assert!(!reader.leaves_reusable(b"") && reader.on_close() == Err(why));
                    return Err(why);
                }
            }
        }
    }
    if closes {
        reader.on_close()?;
        assert!(reader.is_done() && !reader.leaves_reusable(&input));
    }
    let reusable = reader.leaves_reusable(&input);
    assert!(!reusable || (input.is_empty() && reader.is_done() && !head.is_empty()));
    Ok((head, body, trailers, reusable, input.to_vec()))
}

/// A connection between proxies reads the same however its bytes are cut, keeps no more than its bounds, and says the
/// same at either end of a refusal.
pub fn mux(data: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let whole = mux_reads(role, data, data.len().max(1));
        assert_eq!(mux_reads(role, data, 1), whole);
        assert_eq!(mux_reads(role, data, 7), whole);
    }
}

/// What an engine makes of `data` in pieces of `piece` bytes: events, bytes read, bytes to be written, and its verdict.
fn mux_reads(
    role: Role,
    data: &[u8],
    piece: usize,
) -> (Vec<String>, usize, Vec<u8>, Result<(), MuxError>) {
    let mut engine = Engine::new(role);
    if role == Role::Client {
        for target in ["/one", "/two"] {
            let (parts, ()) = http::Request::get(target)
                .body(())
                .expect("a request")
                .into_parts();
            engine.open(&parts, false).expect("a place");
        }
    }
    let (mut input, mut events, mut seen, mut read) =
        (bytes::BytesMut::new(), Vec::new(), Vec::new(), 0);
    let mut result = Ok(());
    for bytes in data.chunks(piece) {
        input.extend_from_slice(bytes);
        result = engine.feed(&mut input, &mut events);
        if result.is_err() {
            break;
        }
    }
    for event in events.drain(..) {
        seen.push(format!("{event:?}"));
        if let Event::Request { id, .. } | Event::Readable(id) = event {
            while let Taken::Data(data) = engine.take(id) {
                read += data.len();
            }
        }
    }
    assert!(read <= mux::limits::CONNECTION_WINDOW as usize && read <= data.len());
    assert!(engine.streams() <= mux::limits::STREAMS_MAX);
    assert!(engine.out().len() <= mux::limits::OUT_BYTES_MAX + mux::limits::HEAD_BYTES_MAX);
    (seen, read, engine.out().to_vec(), result)
}

/// A line that is taken is printable and ends nowhere inside; redacting it leaves its leaf as it was.
pub fn audit_line(data: &[u8]) {
    let Some(parts) = Parts::of(data) else {
        return;
    };
    assert!(data.iter().all(|byte| (0x20..0x7f).contains(byte)));
    assert_eq!(parts.leaf(), leaf_hash(&parts.entry()));
    let _ = Line::read(data);
    let _ = redact::check(data);
    if let Ok(Some(redacted)) = redact::redact(data, &Redactable::ALL) {
        let again = Parts::of(&redacted).expect("a redacted line is a line");
        assert_eq!((again.seq, again.leaf()), (parts.seq, parts.leaf()));
        assert!(redact::check(&redacted).is_ok() || redact::check(data).is_err());
    }
}

/// A bundle that is accepted is written again as it was, and nothing that it says stops a report. Bytes whose hashes do not
/// fit are given hashes that do, so that what stands behind them is reached.
pub fn snapshot_bundle(data: &[u8]) {
    for bytes in [data.to_vec(), rehashed(data)] {
        let Ok(read) = snapshot::read(&bytes) else {
            continue;
        };
        let written = snapshot::write(&read).expect("what was read can be written");
        assert_eq!(snapshot::read(&written).as_ref(), Ok(&read));
        let small = read.files.iter().map(|file| file.text.len()).sum::<usize>() < 4_096
            && read.traffic.len() + read.workloads.len() < 64;
        if small {
            let one = report::run(&read, "00", &[]);
            assert_eq!(one, report::run(&read, "00", &[]));
        }
    }
}

/// The lines of a bundle with the head and the hashes that they should have.
fn rehashed(data: &[u8]) -> Vec<u8> {
    let lines = data.split(|byte| *byte == b'\n').skip(1);
    let bodies: Vec<&[u8]> = lines
        .filter_map(|line| {
            let rest = line.strip_prefix(br#"{"hash":""#)?;
            rest.get(66..)?.strip_suffix(b"}")
        })
        .collect();
    snapshot::seal(bodies.into_iter())
}

/// Any text gives a mapping or a refusal with its place.
pub fn mapping(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = framework::parse("mapping.yaml", text) {
        assert!(error.to_string().contains("mapping.yaml"), "{error}");
    }
}

/// Notes, checkpoints, proofs, requests to witnesses and paths of tiles print as they were read; bundles survive.
pub fn checkpoint(data: &[u8]) {
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.to_string().as_bytes(), data);
        if let Ok(head) = TreeHead::parse(note.text()) {
            assert_eq!(head.to_text().as_deref(), Ok(note.text()));
        }
    }
    if let Ok(proof) = TlogProof::parse(data) {
        assert_eq!(proof.to_string().as_bytes(), data);
        let _ = verify_inclusion(
            leaf_hash(b""),
            proof.index,
            1 << 40,
            &proof.hashes,
            leaf_hash(b""),
        );
    }
    if let Ok(request) = AddCheckpoint::parse(data) {
        assert_eq!(request.to_string().as_bytes(), data);
    }
    if let Ok(entries) = bundle::entries(data) {
        let mut again = Vec::new();
        for entry in entries {
            bundle::append(&mut again, entry).expect("it came from a bundle");
        }
        assert_eq!(again, data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text.trim());
    }
    if let Some(tile) = Tile::parse(text) {
        assert_eq!(tile.path(), text);
    }
}

/// A policy and questions, made of the bytes: the compiled program answers each as Cedar does.
pub fn residual_vs_cedar(data: &[u8]) {
    mesh_policy::fuzzing::residual_vs_cedar(data);
}

/// Manifests and requests of the bytes: the matcher, Cedar and a plain reading of the rules decide alike.
pub fn decisions(data: &[u8]) {
    let agreed = mesh_policy_trials::equality::try_bytes(data);
    assert!(agreed.is_ok(), "{agreed:?}");
}
