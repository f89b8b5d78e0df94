/** Conversation with the Rust side: one JSON object a line; see `suite/clients/script.rs`. */

/** Payloads that each client sends and has echoed, one after the other. */
export const MESSAGES = 100;

/** What this client is to do: `server`, `port`, `transport`, `username`, `password`. */
export const task = JSON.parse(process.argv[2] ?? "{}");

/** The payload number `nth`: of many lengths, none a multiple of the last, and known to both ends. */
export function payload(nth) {
  return Buffer.alloc(1 + ((nth * 37) % 900), nth + 1);
}

/** Says what was exchanged, and by which types of candidates. */
export function exchanged(version, candidates) {
  tell({ event: "exchanged", version, payloads: MESSAGES, candidates });
}

/** Resolves when the Rust side has read the relay's counters, or dies. */
export function untilToldToStop() {
  return new Promise((resolve) => {
    process.stdin.on("end", resolve).on("error", resolve).resume();
  });
}

/** Runs a client to its end, tells of its failure and ends the process. */
export async function run(client) {
  try {
    await client();
    process.exit(0);
  } catch (error) {
    tell({ event: "failed", text: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}

function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}
