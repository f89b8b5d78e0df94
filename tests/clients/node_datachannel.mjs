/** Two peer connections of libdatachannel with libjuice, and a data channel that echoes. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import datachannel from "node-datachannel";
import { exchanged, MESSAGES, payload, run, task, untilToldToStop } from "./lines.mjs";

const RELAY_TYPES = { udp: "TurnUdp", tcp: "TurnTcp", tls: "TurnTls" };

await run(async () => {
  const [one, two] = ["one", "two"].map((name) => connection(name));
  trickle(one, two);
  trickle(two, one);
  two.onDataChannel((channel) => channel.onMessage((bytes) => channel.sendMessageBinary(bytes)));
  const channel = one.createDataChannel("echo");
  await new Promise((resolve, reject) => {
    channel.onOpen(resolve);
    one.onStateChange((state) => state === "failed" && reject(new Error("no connection")));
  });
  for (let nth = 0; nth < MESSAGES; nth++) {
    const answer = new Promise((resolve) => channel.onMessage(resolve));
    channel.sendMessageBinary(payload(nth));
    if (!payload(nth).equals(Buffer.from(await answer))) throw new Error(`payload ${nth} differs`);
  }
  const candidates = [one, two].map((end) => end.getSelectedCandidatePair()?.local.type);
  exchanged(`${version()} (libdatachannel ${datachannel.getLibraryVersion()})`, candidates);
  await untilToldToStop();
  for (const end of [one, two]) end.close();
  datachannel.cleanup();
});

function connection(name) {
  const { server, port, username, password, transport } = task;
  const relay = { hostname: server, port, username, password, relayType: RELAY_TYPES[transport] };
  return new datachannel.PeerConnection(name, { iceServers: [relay], iceTransportPolicy: "relay" });
}

function trickle(from, to) {
  from.onLocalDescription((sdp, type) => to.setRemoteDescription(sdp, type));
  from.onLocalCandidate((candidate, mid) => to.addRemoteCandidate(candidate, mid));
}

function version() {
  const entry = createRequire(import.meta.url).resolve("node-datachannel");
  const folder = entry.slice(0, entry.lastIndexOf("/dist/"));
  return JSON.parse(readFileSync(`${folder}/package.json`, "utf8")).version;
}
