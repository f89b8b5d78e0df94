/** Two peer connections of one Firefox page: sound and pictures both ways, and an echo. */

import { createServer } from "node:http";
import { Firefox } from "./bidi.mjs";
import { exchanged, MESSAGES, run, task, untilToldToStop } from "./lines.mjs";

await run(async () => {
  // Devices need a page with an origin; loopback is as good as HTTPS.
  const page = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end());
  await new Promise((resolve) => page.listen(0, "127.0.0.1", resolve));
  const firefox = await Firefox.start();
  await firefox.open(`http://127.0.0.1:${page.address().port}/`);
  const candidates = await firefox.call(exchange, { ...task, messages: MESSAGES });
  exchanged(firefox.version, candidates);
  await untilToldToStop();
  await firefox.call(() => {
    for (const end of globalThis.ends) end.close();
  });
  await firefox.close();
});

/** Runs in the page; answers the types of the candidates in use. */
async function exchange({ server, port, transport, username, password, messages }) {
  const scheme = transport === "tls" ? "turns" : "turn";
  const urls = `${scheme}:${server}:${port}?transport=${transport === "udp" ? "udp" : "tcp"}`;
  const config = {
    iceServers: [{ urls, username, credential: password }],
    iceTransportPolicy: "relay",
  };
  const ends = [new RTCPeerConnection(config), new RTCPeerConnection(config)];
  globalThis.ends = ends;
  const [one, two] = ends;
  one.onicecandidate = ({ candidate }) => candidate && two.addIceCandidate(candidate);
  two.onicecandidate = ({ candidate }) => candidate && one.addIceCandidate(candidate);
  two.ondatachannel = ({ channel }) => {
    channel.onmessage = ({ data }) => channel.send(data);
  };
  const channel = one.createDataChannel("echo");
  channel.binaryType = "arraybuffer";
  const devices = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  for (const end of ends) for (const track of devices.getTracks()) end.addTrack(track, devices);
  const open = new Promise((resolve, reject) => {
    channel.onopen = resolve;
    one.onconnectionstatechange = () =>
      one.connectionState === "failed" && reject(new Error("no connection"));
  });
  await one.setLocalDescription();
  await two.setRemoteDescription(one.localDescription);
  await two.setLocalDescription();
  await one.setRemoteDescription(two.localDescription);
  await open;
  for (let nth = 0; nth < messages; nth++) {
    const answer = new Promise((resolve) => {
      channel.onmessage = ({ data }) => resolve(new Uint8Array(data));
    });
    const payload = new Uint8Array(1 + ((nth * 37) % 900)).fill(nth + 1);
    channel.send(payload);
    const came = await answer;
    if (came.length !== payload.length || came.some((byte) => byte !== nth + 1)) {
      throw new Error(`payload ${nth} differs`);
    }
  }
  const types = [];
  for (const end of ends) {
    for (;;) {
      const stats = [...(await end.getStats()).values()];
      const video = stats.find((it) => it.type === "inbound-rtp" && it.kind === "video");
      const sound = stats.find((it) => it.type === "inbound-rtp" && it.kind === "audio");
      const pair = stats.find((it) => it.type === "candidate-pair" && it.selected);
      if (pair && sound?.packetsReceived > 0 && video?.framesDecoded > 0) {
        for (const id of [pair.localCandidateId, pair.remoteCandidateId]) {
          types.push(stats.find((it) => it.id === id).candidateType);
        }
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  return types;
}
