//! `/metrics` and `/healthz`: what the workers have counted, in Prometheus' text form.
//!
//! Labels come from fixed lists only; no name or address is ever one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};
use relay_proto::address::{Family, Transport};
use relay_proto::auth::AuthFailure;
use relay_proto::icmp::IcmpFate;
use relay_proto::policy::RelayIp;
use relay_proto::relay::{Closed, Snapshot};
use relay_proto::stun::Method;
use relay_proto::traffic::{Count, DropReason, Traffic};

use crate::control::Control;
use crate::shared::Shared;
use crate::tls::{Certificates, Validity};

/// A worker that has not turned for so long is stuck.
const BEAT_MS_MAX: u64 = 3_000;

/// What the admin address shows.
#[derive(Clone)]
pub struct Page {
    shared: Arc<Shared>,
    relay_ips: Vec<RelayIp>,
    control: Arc<Control>,
    certificates: Option<Arc<Certificates>>,
}

impl Page {
    /// The page of a running relay.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        relay_ips: Vec<RelayIp>,
        control: Arc<Control>,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        Self { shared, relay_ips, control, certificates }
    }

    /// Whether every worker turns.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let now_ms = self.shared.clock.now().mono_ms;
        let turns = |beat: u64| now_ms.saturating_sub(beat) <= BEAT_MS_MAX;
        self.shared.mailboxes.iter().all(|mailbox| turns(mailbox.beat_ms.load(Ordering::Relaxed)))
    }

    /// The metrics of this moment; waits for each worker to say what it has counted.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut families = families(&sum(self.shared.snapshots()));
        families.push(gauge("relay_ports", "Relayed ports of one family.", self.shared.ports()));
        let free = self.shared.ports_free();
        families.push(gauge("relay_ports_free", "Relayed ports that are free.", free));
        // One of them serves streams.
        let workers = self.shared.mailboxes.len() - 1;
        families.push(gauge("relay_workers", "Threads for UDP.", workers));
        families.extend(self.certificates.iter().flat_map(|it| tls(it)));
        families.extend(operations(&self.control));
        families.push(interface_bytes());
        families.push(build_info(&self.relay_ips));
        encode(families)
    }
}

/// All workers' snapshots as one.
fn sum(snapshots: Vec<Snapshot>) -> Snapshot {
    snapshots.into_iter().fold(Snapshot::default(), |mut all, one| {
        all.traffic.merge(&one.traffic);
        for (mine, theirs) in [
            (&mut all.allocations, one.allocations),
            (&mut all.allocations_carrying, one.allocations_carrying),
            (&mut all.links_one_sided, one.links_one_sided),
            (&mut all.link_ends_two_sided, one.link_ends_two_sided),
            (&mut all.permissions, one.permissions),
            (&mut all.channels, one.channels),
            (&mut all.conservation_errors, one.conservation_errors),
        ] {
            *mine += theirs;
        }
        let pairs = all.allocations_closed.iter_mut().zip(one.allocations_closed);
        let pairs = pairs.chain(all.allocations_opened.iter_mut().zip(one.allocations_opened));
        let pairs = pairs.chain(all.auth_failures.iter_mut().zip(one.auth_failures));
        let pairs = pairs.chain(all.icmp_errors.iter_mut().zip(one.icmp_errors));
        pairs.for_each(|(mine, theirs)| *mine += theirs);
        for (key, count) in one.requests {
            *all.requests.entry(key).or_default() += count;
        }
        all
    })
}

/// Prometheus' text form; families without samples are left out.
fn encode(mut families: Vec<MetricFamily>) -> String {
    families.retain(|family| !family.get_metric().is_empty());
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).expect("every family has samples");
    String::from_utf8(text).expect("labels are ASCII")
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

fn families(all: &Snapshot) -> Vec<MetricFamily> {
    let traffic = &all.traffic;
    let (wire_rx, wire_tx) = traffic.wire_bytes();
    let dropped =
        DropReason::ALL.map(|it| (vec![("reason", it.label())], traffic.dropped[it.index()]));
    let opened = Transport::ALL
        .map(|it| (vec![("transport", it.label())], all.allocations_opened[it.index()]));
    let closed =
        Closed::ALL.map(|it| (vec![("reason", it.label())], all.allocations_closed[it as usize]));
    let failures =
        AuthFailure::ALL.map(|it| (vec![("reason", it.label())], all.auth_failures[it.index()]));
    let icmp_errors =
        IcmpFate::ALL.map(|it| (vec![("fate", it.label())], all.icmp_errors[it.index()]));
    let links = [
        (vec![("kind", "one_sided")], all.links_one_sided),
        // Both ends are allocations of this server, so each link was counted twice.
        (vec![("kind", "two_sided")], all.link_ends_two_sided.div_ceil(2)),
    ];
    let wire = [(vec![("direction", "rx")], wire_rx), (vec![("direction", "tx")], wire_tx)];
    vec![
        counter(
            "relay_bytes_total",
            "Bytes in the payload of UDP and TCP, framing of TURN and TLS included.",
            legs(traffic, |it| it.bytes),
        ),
        counter(
            "relay_packets_total",
            "Datagrams, and messages over TCP.",
            legs(traffic, |it| it.packets),
        ),
        counter(
            "relay_wire_bytes_total",
            "Bytes of IP packets, headers included: what a provider bills. Of TCP without headers.",
            wire,
        ),
        counter(
            "relay_hairpin_bytes_total",
            "Payload from one allocation to another in process.",
            [(vec![], traffic.hairpin.bytes)],
        ),
        counter(
            "relay_hairpin_packets_total",
            "Datagrams from one allocation to another in process.",
            [(vec![], traffic.hairpin.packets)],
        ),
        counter("relay_dropped_packets_total", "Datagrams refused.", dropped),
        requests(&all.requests),
        counter("relay_auth_failures_total", "Requests whose credentials were refused.", failures),
        counter(
            "relay_icmp_errors_total",
            "What the network said about payloads, by what became of it.",
            icmp_errors,
        ),
        counter("relay_allocations_total", "Allocations opened.", opened),
        counter("relay_allocations_closed_total", "Allocations ended.", closed),
        counter(
            "relay_conservation_errors_total",
            "Allocations whose bytes did not add up: a bug if not 0.",
            [(vec![], all.conservation_errors)],
        ),
        gauge("relay_allocations", "Live allocations.", all.allocations),
        gauge(
            "relay_allocations_carrying",
            "Allocations with payload both ways in the last 10 s.",
            all.allocations_carrying,
        ),
        family(
            "relay_links",
            "Links that carried payload both ways in the last 10 s: K.",
            MetricType::GAUGE,
            links,
        ),
        gauge("relay_permissions", "Live permissions.", all.permissions),
        gauge("relay_channels", "Live channels.", all.channels),
    ]
}

fn legs(traffic: &Traffic, value: fn(&Count) -> u64) -> Vec<(Labels<'static>, u64)> {
    let mut samples = Vec::new();
    let clients = Transport::ALL.into_iter().zip(&traffic.client);
    let legs = clients.map(|(transport, leg)| ("client", transport, leg));
    for (leg_name, transport, leg) in legs.chain([("peer", Transport::Udp, &traffic.peer)]) {
        for (direction, counts) in [("rx", &leg.rx), ("tx", &leg.tx)] {
            for (family, count) in Family::ALL.into_iter().zip(counts) {
                let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
                let labels = vec![
                    ("leg", leg_name),
                    ("direction", direction),
                    ("transport", transport.label()),
                    ("family", family),
                ];
                samples.push((labels, value(count)));
            }
        }
    }
    samples
}

fn requests(requests: &BTreeMap<(Method, u16), u64>) -> MetricFamily {
    let codes: Vec<_> = requests.keys().map(|(_, code)| code.to_string()).collect();
    let samples = requests.iter().zip(&codes).map(|(((method, code), count), text)| {
        let class = if *code == 0 { "success" } else { "error" };
        (vec![("method", method.name()), ("class", class), ("code", text.as_str())], *count)
    });
    counter("relay_requests_total", "Requests answered; code 0 is success.", samples)
}

/// What the operator did to the relay.
fn operations(control: &Control) -> [MetricFamily; 3] {
    let (succeeded, failed, last_success_unix_s) = control.reloads().figures();
    let reloads = [(vec![("result", "success")], succeeded), (vec![("result", "failure")], failed)];
    [
        counter("relay_reloads_total", "Times that settings or secrets were read again.", reloads),
        gauge(
            "relay_config_last_reload_success_timestamp_seconds",
            "When what is in force was read.",
            last_success_unix_s,
        ),
        gauge(
            "relay_draining",
            "1 if nobody gets a new allocation.",
            u64::from(control.is_draining()),
        ),
    ]
}

/// The kernel's own counters of every interface but loopback.
fn interface_bytes() -> MetricFamily {
    let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut samples = Vec::new();
    let names: Vec<_> =
        devices.filter_map(|device| device.file_name().into_string().ok()).collect();
    for name in &names {
        for direction in ["rx", "tx"] {
            let file = format!("/sys/class/net/{name}/statistics/{direction}_bytes");
            let read = std::fs::read_to_string(file).ok();
            if let Some(bytes) = read.and_then(|text| text.trim().parse().ok()) {
                samples.push((vec![("device", name.as_str()), ("direction", direction)], bytes));
            }
        }
    }
    counter(
        "relay_interface_bytes_total",
        "The kernel's count, Ethernet headers included.",
        samples,
    )
}

fn tls(certificates: &Certificates) -> [MetricFamily; 3] {
    let Validity { start_s, expiry_s } = certificates.validity();
    [
        gauge(
            "relay_tls_certificate_start_timestamp_seconds",
            "The certificate is not valid before.",
            start_s,
        ),
        gauge(
            "relay_tls_certificate_expiry_timestamp_seconds",
            "The certificate is not valid after.",
            expiry_s,
        ),
        counter(
            "relay_tls_reload_failures_total",
            "Changed certificate files that could not be used.",
            [(vec![], certificates.reload_failures())],
        ),
    ]
}

fn build_info(relay_ips: &[RelayIp]) -> MetricFamily {
    let has = |family| relay_ips.iter().any(|ip| Family::of(&ip.local) == family);
    let yes = |on| if on { "yes" } else { "no" };
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION")),
        ("ipv4", yes(has(Family::V4))),
        ("ipv6", yes(has(Family::V6))),
    ];
    family("relay_build_info", "Constant 1.", MetricType::GAUGE, [(labels, 1)])
}

fn counter<'a>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples)
}

fn gauge(name: &str, help: &str, value: impl TryInto<u64>) -> MetricFamily {
    let value = value.try_into().unwrap_or(u64::MAX);
    family(name, help, MetricType::GAUGE, [(vec![], value)])
}

fn family<'a>(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    for (labels, value) in samples {
        let mut metric = Metric::default();
        // Exact up to 2^53, as everything in Prometheus.
        #[allow(clippy::cast_precision_loss)]
        let value = value as f64;
        if kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        let pair = |(name, value): (&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        metric.set_label(labels.into_iter().map(pair).collect());
        family.mut_metric().push(metric);
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_relay_shows_every_name() {
        let text = encode(families(&Snapshot::default()));
        for reason in DropReason::ALL {
            let line = format!("relay_dropped_packets_total{{reason=\"{}\"}} 0", reason.label());
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("relay_links{kind=\"two_sided\"} 0"));
        let line = "relay_bytes_total{leg=\"client\",direction=\"rx\",transport=\"udp\",family=\"ipv4\"} 0";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn no_sample_stands_twice() {
        let requests = BTreeMap::from([((Method::Allocate, 0), 3), ((Method::Allocate, 401), 2)]);
        let text = encode(families(&Snapshot { requests, ..Snapshot::default() }));
        let mut names: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        names.sort_unstable();
        names.dedup_by_key(|(name, _)| *name);
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        let unique = names.iter().filter(|(name, _)| !name.starts_with('#')).count();
        assert_eq!(samples, unique);
    }

    #[test]
    fn two_ends_are_one_two_sided_link() {
        let one = Snapshot { link_ends_two_sided: 1, ..Snapshot::default() };
        let all = sum(vec![one.clone(), one]);
        assert_eq!(all.link_ends_two_sided.div_ceil(2), 1);
    }
}
