/**
 * One `RTCPeerConnection`, from its first description to its end.
 *
 * It has two fixed slots, microphone and camera, in this order. Turning something on or off later
 * replaces a track in its slot, so a connection never negotiates twice.
 */
import type { Candidate } from "../protocol.ts";
import { type Budget, CAPTURE } from "./planner.ts";

/** The media sections of a description, in order. */
export const SLOTS = ["mic", "cam"] as const;
/** What a slot carries. */
export type Slot = (typeof SLOTS)[number];
/** One track for each slot; `null` sends nothing. */
export type Tracks = Readonly<Record<Slot, MediaStreamTrack | null>>;

const KIND = { mic: "audio", cam: "video" } as const;

/** What the connection tells its owner. */
export interface ConnectionEvents {
  candidate(candidate: Candidate | null): void;
  state(state: RTCPeerConnectionState): void;
  /** A STUN or TURN server refused or did not answer (code 300 to 799). */
  serverError(code: number): void;
}

/** What a connection sends: tracks, and the stream that keeps sound and picture together. */
export interface Outgoing {
  readonly tracks: Tracks;
  readonly stream: MediaStream;
  readonly budget: Budget;
}

/** See the module. Its operations run one after the other, in the order of the calls. */
export class Connection {
  readonly #connection: RTCPeerConnection;
  #slots: Partial<Record<Slot, RTCRtpTransceiver>> = {};
  #chain: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(connection: RTCPeerConnection, events: ConnectionEvents) {
    this.#connection = connection;
    connection.onicecandidate = ({ candidate }) => events.candidate(candidate && toWire(candidate));
    connection.onconnectionstatechange = () => events.state(connection.connectionState);
    connection.onicecandidateerror = ({ errorCode }) => events.serverError(errorCode);
  }

  /** Opens the slots and returns the offer. */
  offer(outgoing: Outgoing): Promise<string> {
    return this.#queue(async () => {
      for (const slot of SLOTS) {
        this.#slots[slot] = this.#connection.addTransceiver(KIND[slot], {
          direction: "sendrecv",
          streams: [outgoing.stream],
        });
      }
      await this.#send(outgoing.tracks);
      const sdp = await this.#describe();
      await this.#limit(outgoing.budget);
      return sdp;
    });
  }

  /** Takes the other end's offer, puts the own tracks into its slots and returns the answer. */
  accept(sdp: string, outgoing: Outgoing): Promise<string> {
    return this.#queue(async () => {
      await this.#connection.setRemoteDescription({ type: "offer", sdp });
      const transceivers = this.#connection.getTransceivers();
      for (const [index, slot] of SLOTS.entries()) {
        const transceiver = transceivers[index];
        if (transceiver?.receiver.track.kind !== KIND[slot]) throw new Error(`no slot for ${slot}`);
        transceiver.direction = "sendrecv";
        transceiver.sender.setStreams?.(outgoing.stream);
        this.#slots[slot] = transceiver;
      }
      await this.#send(outgoing.tracks);
      const answer = await this.#describe();
      await this.#limit(outgoing.budget);
      return answer;
    });
  }

  /** Takes the other end's answer. */
  complete(sdp: string): Promise<void> {
    return this.#queue(() => this.#connection.setRemoteDescription({ type: "answer", sdp }));
  }

  /** Takes the other end's candidates; `null` ends their list. */
  addCandidates(candidates: readonly (Candidate | null)[]): Promise<void> {
    return this.#queue(async () => {
      for (const candidate of candidates) {
        // One that this browser cannot use, such as an unknown transport, costs only itself.
        await this.#connection.addIceCandidate(candidate ?? undefined).catch(() => undefined);
      }
    });
  }

  /** Sends these tracks from now on. */
  replaceTracks(tracks: Tracks): Promise<void> {
    return this.#queue(() => this.#send(tracks));
  }

  /** Keeps to this budget from now on. */
  applyBudget(budget: Budget): Promise<void> {
    return this.#queue(() => this.#limit(budget));
  }

  /** Uses these servers for candidates gathered from now on. */
  useServers(iceServers: RTCIceServer[]): void {
    if (this.#closed) return;
    // Firefox before 119 lacks it; there the next rebuild brings the new servers.
    this.#connection.setConfiguration?.({ ...this.#connection.getConfiguration(), iceServers });
  }

  /** What the other end sends. The tracks exist from the first description on. */
  received(): Tracks {
    return {
      mic: this.#slots.mic?.receiver.track ?? null,
      cam: this.#slots.cam?.receiver.track ?? null,
    };
  }

  /** The connection's state as the browser sees it. */
  get state(): RTCPeerConnectionState {
    return this.#connection.connectionState;
  }

  /** The browser's statistics, as a list. */
  async stats(): Promise<unknown[]> {
    const report = await this.#connection.getStats();
    const stats: unknown[] = [];
    report.forEach((stat) => {
      stats.push(stat);
    });
    return stats;
  }

  /** Ends it. Nothing is reported afterwards. */
  close(): void {
    this.#closed = true;
    this.#connection.onicecandidate = null;
    this.#connection.onconnectionstatechange = null;
    this.#connection.onicecandidateerror = null;
    this.#connection.close();
  }

  /** Runs `work` after what was queued before. After `close` it never ends, as nobody waits. */
  #queue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#chain.then(async () => {
      if (this.#closed) return new Promise<never>(() => undefined);
      try {
        return await work();
      } catch (error) {
        if (this.#closed) return new Promise<never>(() => undefined);
        throw error;
      }
    });
    this.#chain = result.catch(() => undefined);
    return result;
  }

  async #describe(): Promise<string> {
    await this.#connection.setLocalDescription();
    const description = this.#connection.localDescription;
    if (!description) throw new Error("no local description");
    return description.sdp;
  }

  async #send(tracks: Tracks): Promise<void> {
    for (const slot of SLOTS) {
      const sender = this.#slots[slot]?.sender;
      if (sender && sender.track !== tracks[slot]) await sender.replaceTrack(tracks[slot]);
    }
  }

  async #limit(budget: Budget): Promise<void> {
    await setEncoding(this.#slots.mic?.sender, { maxBitrate: budget.audioBps });
    const camera = this.#slots.cam?.sender;
    // Some cameras give another size than they were asked for.
    const captured = camera?.track?.getSettings().height ?? CAPTURE.height;
    await setEncoding(camera, {
      maxBitrate: budget.videoBps,
      maxFramerate: budget.framesPerSecond,
      scaleResolutionDownBy: Math.max(1, captured / budget.height),
    });
  }
}

async function setEncoding(
  sender: RTCRtpSender | undefined,
  limits: RTCRtpEncodingParameters,
): Promise<void> {
  if (!sender) return;
  const parameters = sender.getParameters();
  const encoding = parameters.encodings?.[0];
  if (!encoding) return;
  Object.assign(encoding, limits);
  // A browser that knows one of the limits not at all still sends, only more.
  await sender.setParameters(parameters).catch(() => undefined);
}

function toWire(candidate: RTCIceCandidate): Candidate {
  return {
    candidate: candidate.candidate,
    sdpMid: candidate.sdpMid,
    sdpMLineIndex: candidate.sdpMLineIndex,
    usernameFragment: candidate.usernameFragment,
  };
}
