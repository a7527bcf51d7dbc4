//! Metrics on their way to an OpenTelemetry collector: all that `/metrics` says, every so often, over OTLP.
//!
//! Nothing waits to be sent. Counts are since the start, so what one push does not bring the next one does, and a collector
//! that is down for an hour costs nobody more than the samples of that hour. It is tried again sooner than the next push is
//! due, with counts of that moment, and left alone for as long as it asks ([`Pace`]).

use crate::admin;
use crate::collector::{self, Link, NotTaken};
use crate::config::{OtlpProtocol, Traces};
use crate::limits::{EXPORT_PAUSE, METRICS_POINTS, RETRY_AFTER_MAX};
use crate::state::Shared;
use bytes::Bytes;
use mesh_api::otlp::metrics::{
    CUMULATIVE, Data, ExportMetrics, Gauge, Histogram, HistogramPoint, Metric, Number, NumberPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use mesh_api::otlp::{KeyValue, Resource};
use mesh_proxy_core::exposition::{Family, Kind, Label, Sink, Value, tell, told};
use mesh_proxy_core::metrics::Registry;
use mesh_proxy_core::metrics::histogram::BOUNDS_US;
use mesh_trust::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Sends metrics every so often until the proxy ends, and then once more.
pub(crate) async fn export(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let config = shared.config.traces.as_ref();
    let Some((config, every)) = config.and_then(|config| Some((config, config.metrics?))) else {
        return;
    };
    let mut push = Push {
        shared: &shared,
        config,
        link: Link::new(&shared, config, collector::METRICS),
        failing: false,
    };
    let mut pace = Pace::new(every);
    // Proxies that start together do not push together.
    let mut wait = share_of(every, shared.platform.dice());
    loop {
        // An error: whoever would say so is gone.
        let ending = timeout(wait, stop.wait_for(|stop| *stop)).await.is_ok();
        let begun = Instant::now();
        let outcome = push.all().await;
        if ending {
            return;
        }
        wait = pace.after(&outcome).saturating_sub(begun.elapsed());
    }
}

/// A part of `every` by chance.
fn share_of(every: Duration, dice: u64) -> Duration {
    let millis = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(dice % millis)
}

/// When to push next.
#[derive(Debug)]
struct Pace {
    every: Duration,
    /// Before the next try, should this one fail too.
    pause: Duration,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self {
            every,
            pause: EXPORT_PAUSE,
        }
    }

    /// How long after the last one began. What failed is tried again after pauses that double, up to the usual one; what
    /// the collector asks for is heard, but not without end, and never makes it sooner.
    fn after(&mut self, outcome: &Result<(), NotTaken>) -> Duration {
        match outcome {
            Err(NotTaken::Later(_, asked)) => {
                let pause = self.pause.min(self.every);
                self.pause = (pause * 2).min(self.every);
                pause.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX))
            }
            Ok(()) | Err(NotTaken::Never(_)) => {
                self.pause = EXPORT_PAUSE;
                self.every
            }
        }
    }
}

/// What brings them there.
struct Push<'a> {
    shared: &'a Shared,
    config: &'a Traces,
    link: Link<'a>,
    /// Whether the last push was not taken; said once.
    failing: bool,
}

impl Push<'_> {
    /// Everything as it is now; the first message that is not taken ends it.
    async fn all(&mut self) -> Result<(), NotTaken> {
        let messages = messages(
            &admin::metrics(self.shared),
            self.config.protocol,
            &self.link.whose(),
            (self.shared.started_at, self.shared.platform.wall_clock()),
        );
        for message in messages {
            match self.link.send(message).await {
                Ok(answer) => match answer.rejected() {
                    (0, _) => {}
                    (_, why) => {
                        let why = why.to_owned();
                        self.not_taken("refused", &why);
                        return Err(NotTaken::Never(why));
                    }
                },
                Err(error) => {
                    match &error {
                        NotTaken::Later(why, _) => self.not_taken("unsent", why),
                        NotTaken::Never(why) => self.not_taken("refused", why),
                    }
                    return Err(error);
                }
            }
        }
        self.count("taken");
        if std::mem::take(&mut self.failing) {
            tracing::info!("the collector takes metrics again");
        }
        Ok(())
    }

    fn not_taken(&mut self, outcome: &'static str, why: &str) {
        self.count(outcome);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                code = "MESH-0580",
                why,
                "the collector does not take metrics: these samples are missing there"
            );
        }
    }

    fn count(&self, outcome: &'static str) {
        let label = Some(("outcome", outcome));
        self.shared
            .telemetry
            .add("mesh_metrics_pushes_total", label, 1);
    }
}

/// All of a registry as messages of the protocol, each with at most [`METRICS_POINTS`] series. `since`, `now`: when counting
/// began, and when this was counted.
fn messages(
    registry: &Registry,
    protocol: OtlpProtocol,
    whose: &Resource,
    (since, now): (Timestamp, Timestamp),
) -> Vec<Bytes> {
    let nanos = |time: Timestamp| {
        let micros = u64::try_from(time.unix_micros()).unwrap_or(0);
        micros.saturating_mul(1_000)
    };
    let mut messages = Messages {
        protocol,
        whose,
        since: nanos(since),
        now: nanos(now),
        family: None,
        metrics: Vec::new(),
        points: 0,
        done: Vec::new(),
    };
    tell(registry, &mut messages);
    messages.end();
    messages.done
}

/// Messages so far.
struct Messages<'a> {
    protocol: OtlpProtocol,
    whose: &'a Resource,
    /// Nanoseconds since 1970, both.
    since: u64,
    now: u64,
    /// The one whose series come; it is begun in a message with the first of them.
    family: Option<Family>,
    /// Of the message that is written.
    metrics: Vec<Metric>,
    points: usize,
    done: Vec<Bytes>,
}

impl Sink for Messages<'_> {
    fn family(&mut self, family: Family) {
        self.family = Some(family);
    }

    fn series(&mut self, labels: &[Label<'_>], value: Value<'_>) {
        let Some(family) = self.family else { return };
        if self
            .metrics
            .last()
            .is_none_or(|last| last.name != family.name)
        {
            self.metrics.push(begin(family));
        }
        let attributes = labels
            .iter()
            .map(|(name, value)| KeyValue::text(*name, told(value).collect::<String>()))
            .collect();
        let (since, now) = (self.since, self.now);
        let data = self.metrics.last_mut().and_then(|last| last.data.as_mut());
        match (data, value) {
            (Some(Data::Histogram(to)), Value::Durations(durations)) => {
                to.data_points.push(HistogramPoint {
                    attributes,
                    start_time_unix_nano: since,
                    time_unix_nano: now,
                    count: durations.count(),
                    sum: Some(durations.sum_us() as f64 / 1e6),
                    bucket_counts: durations.counts().to_vec(),
                    explicit_bounds: BOUNDS_US.map(|bound| bound as f64 / 1e6).to_vec(),
                });
            }
            (Some(Data::Sum(to)), value) => to.data_points.push(NumberPoint {
                attributes,
                start_time_unix_nano: since,
                time_unix_nano: now,
                value: number(value),
            }),
            (Some(Data::Gauge(to)), value) => to.data_points.push(NumberPoint {
                attributes,
                start_time_unix_nano: 0,
                time_unix_nano: now,
                value: number(value),
            }),
            // INVARIANT: a histogram's family has durations, and no other has.
            (Some(Data::Histogram(_)) | None, _) => return,
        }
        self.points += 1;
        if self.points >= METRICS_POINTS {
            self.end();
        }
    }
}

impl Messages<'_> {
    /// Ends the message that is written, if anything is in it.
    fn end(&mut self) {
        if self.points == 0 {
            return;
        }
        self.points = 0;
        let message = ExportMetrics {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.whose.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(collector::scope()),
                    metrics: std::mem::take(&mut self.metrics),
                }],
            }],
        };
        self.done.push(Bytes::from(match self.protocol {
            OtlpProtocol::Grpc => message.to_grpc(),
            OtlpProtocol::Http => message.to_bytes(),
        }));
    }
}

/// A metric without series yet.
fn begin(family: Family) -> Metric {
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: family.unit().to_owned(),
        data: Some(match family.kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: Vec::new(),
                aggregation_temporality: CUMULATIVE,
            }),
        }),
    }
}

fn number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::Whole(count) => Some(Number::Int(i64::try_from(count).unwrap_or(i64::MAX))),
        Value::Number(number) => Some(Number::Double(number)),
        Value::Durations(_) => None,
    }
}

#[cfg(test)]
mod tests;
