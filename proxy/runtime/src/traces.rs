//! Spans on their way to an OpenTelemetry collector: gathered from all cores by the control thread, sent in batches over
//! OTLP, with gRPC or HTTP. No request waits for any of this: what the collector does not take in time is dropped and counted.

mod span;

use crate::account::Told;
use crate::collector::{self, Link, NotTaken};
use crate::config::{OtlpProtocol, Traces};
use crate::limits::{EXPORT_ATTEMPTS, EXPORT_EVERY, EXPORT_PAUSE, SPANS_BATCH, SPANS_QUEUE};
use crate::state::Shared;
use bytes::Bytes;
use mesh_api::otlp::{ExportRequest, ExportResponse, ResourceSpans, ScopeSpans};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

/// Where cores leave spans.
pub(crate) struct Queue {
    sender: mpsc::Sender<Arc<Told>>,
    /// Until the one exporter has it.
    receiver: Mutex<Option<mpsc::Receiver<Arc<Told>>>>,
}

impl Queue {
    /// A queue, if traces are sent anywhere.
    pub(crate) fn of(config: Option<&Traces>) -> Option<Self> {
        config?;
        let (sender, receiver) = mpsc::channel(SPANS_QUEUE);
        Some(Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        })
    }

    /// What a core leaves them with.
    pub(crate) fn sender(&self) -> mpsc::Sender<Arc<Told>> {
        self.sender.clone()
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Arc<Told>>> {
        // Whoever panicked in between left it whole.
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.take()
    }
}

/// Sends what comes until the proxy ends, and then once more.
pub(crate) async fn export(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let receiver = shared.traces.as_ref().and_then(Queue::receiver);
    let (Some(config), Some(mut spans)) = (&shared.config.traces, receiver) else {
        return;
    };
    let mut exporter = Exporter {
        shared: &shared,
        protocol: config.protocol,
        link: Link::new(&shared, config, collector::SPANS),
        failing: false,
    };
    let mut ending = false;
    while !ending {
        let batch;
        (batch, ending) = gather(&mut spans, &mut stop).await;
        if !batch.is_empty() {
            exporter.send(batch, &mut stop).await;
        }
    }
}

/// The next spans that are sent together, and whether they are the last: the proxy ends.
async fn gather(
    spans: &mut mpsc::Receiver<Arc<Told>>,
    stop: &mut watch::Receiver<bool>,
) -> (Vec<Arc<Told>>, bool) {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < SPANS_BATCH {
        let came = async {
            match until {
                None => Some(spans.recv().await),
                Some(until) => timeout_at(until, spans.recv()).await.ok(),
            }
        };
        tokio::select! {
            biased;
            // An error: whoever would say so is gone.
            _ = stop.wait_for(|stop| *stop) => {
                // In pieces of the usual size: collectors take no message of many megabytes.
                while batch.len() < SPANS_BATCH {
                    match spans.try_recv() {
                        Ok(told) => batch.push(told),
                        Err(_) => return (batch, true),
                    }
                }
                return (batch, false);
            }
            came = came => match came {
                Some(Some(told)) => {
                    batch.push(told);
                    until.get_or_insert_with(|| Instant::now() + EXPORT_EVERY);
                }
                Some(None) => return (batch, true),
                None => break,
            }
        }
    }
    (batch, false)
}

/// What brings them there.
struct Exporter<'a> {
    shared: &'a Shared,
    protocol: OtlpProtocol,
    link: Link<'a>,
    /// Whether the last batch could not be sent; said once.
    failing: bool,
}

impl Exporter<'_> {
    async fn send(&mut self, batch: Vec<Arc<Told>>, stop: &mut watch::Receiver<bool>) {
        let count = batch.len() as u64;
        let request = self.request(batch);
        let bytes = Bytes::from(match self.protocol {
            OtlpProtocol::Grpc => request.to_grpc(),
            OtlpProtocol::Http => request.to_bytes(),
        });
        drop(request);
        let mut pause = EXPORT_PAUSE;
        for attempt in 1..=EXPORT_ATTEMPTS {
            match self.link.send(bytes.clone()).await {
                Ok(answer) => return self.taken(count, &answer),
                Err(NotTaken::Never(why)) => return self.dropped(count, "refused", &why),
                Err(NotTaken::Later(why, _)) => {
                    if attempt == EXPORT_ATTEMPTS || *stop.borrow() {
                        return self.dropped(count, "unsent", &why);
                    }
                    // What is there when the proxy ends is tried once more.
                    let _ = timeout(pause, stop.wait_for(|stop| *stop)).await;
                    pause *= 2;
                }
            }
        }
    }

    fn taken(&mut self, count: u64, answer: &ExportResponse) {
        let (rejected, why) = answer.rejected();
        let rejected = rejected.min(count);
        let counts = &self.shared.telemetry;
        counts.add("mesh_trace_spans_exported_total", None, count - rejected);
        if rejected > 0 {
            return self.dropped(rejected, "refused", why);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("the collector takes spans again");
        }
    }

    fn dropped(&mut self, count: u64, how: &'static str, why: &str) {
        let counts = &self.shared.telemetry;
        counts.add("mesh_trace_spans_dropped_total", Some(("why", how)), count);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                code = "MESH-0580",
                why,
                "the collector does not take spans: they are dropped and counted"
            );
        }
    }

    /// Spans with whose they are.
    fn request(&self, batch: Vec<Arc<Told>>) -> ExportRequest {
        let spans = batch.iter().filter_map(|told| span::of(told)).collect();
        let scope_spans = ScopeSpans {
            scope: Some(collector::scope()),
            spans,
        };
        ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.link.whose()),
                scope_spans: vec![scope_spans],
            }],
        }
    }
}
