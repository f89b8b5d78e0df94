//! All UDP of a relay, as it counts it and as the kernel does.

use std::time::Duration;

use e2e::counters::Flow;
use e2e::framings;
use e2e::namespace::Namespace;
use e2e::process::until;
use e2e::scrape::Metrics;

/// Bytes of IPv4 and UDP headers on each datagram.
const UDP_IPV4: u64 = 28;
/// How long the two may take to agree.
const SETTLE: Duration = Duration::from_secs(5);

/// IP packets that came in, and that went out. The relay is read just before and just after the
/// kernel, because pictures may be flowing.
#[derive(Debug, Default)]
pub struct Udp {
    before: [Flow; 2],
    kernel: [Flow; 2],
    after: [Flow; 2],
}

impl Udp {
    /// Reads both until they agree, or patience ends. `server` must be watched.
    pub fn compare(server: &Namespace, metrics: impl Fn() -> Metrics) -> Self {
        let mut udp = Self::default();
        until(SETTLE, || {
            let before = counted(&metrics());
            let kernel = framings::read(server).ok()?.udp;
            udp = Self { before, kernel: [kernel.rx, kernel.tx], after: counted(&metrics()) };
            udp.agrees().then_some(())
        });
        udp
    }

    /// Fails unless they agreed.
    pub fn check(&self, title: &str) {
        assert!(self.agrees(), "{title}: the relay's UDP against the kernel's: {self:?}");
    }

    /// As the kernel counted them.
    pub fn packets(&self) -> [u64; 2] {
        self.kernel.map(|flow| flow.packets)
    }

    /// Datagrams of the relay that leave together are one packet to nftables, with one set of
    /// headers, before the kernel cuts them apart. What they carry is the same in any case.
    fn agrees(&self) -> bool {
        let within = |low: u64, middle: u64, high: u64| low <= middle && middle <= high;
        let payload = |flow: Flow| flow.bytes - UDP_IPV4 * flow.packets;
        let carried = (0..2).all(|way| {
            let [low, middle, high] =
                [self.before[way], self.kernel[way], self.after[way]].map(payload);
            within(low, middle, high)
        });
        let [[low, _], [received, sent], [high, most]] =
            [self.before, self.kernel, self.after].map(|ways| ways.map(|flow| flow.packets));
        carried && within(low, received, high) && sent <= most
    }
}

/// All legs by the relay, with the headers that it does not count.
fn counted(metrics: &Metrics) -> [Flow; 2] {
    ["rx", "tx"].map(|direction| {
        let labels = [("direction", direction), ("transport", "udp")];
        let sum = |name| metrics.count(name, &labels).expect("every leg is shown");
        let packets = sum("relay_packets_total");
        Flow { packets, bytes: sum("relay_bytes_total") + UDP_IPV4 * packets }
    })
}
