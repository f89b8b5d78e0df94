/** Conversation with the Rust side: one JSON object a line. */

export function tell(event: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** Resolves when the Rust side closes our standard input, or dies. */
export function untilToldToStop(): Promise<void> {
  return new Promise((resolve) => {
    process.stdin.on("end", resolve).on("error", () => resolve()).resume();
  });
}

/** Runs a spec, tells of its failure and ends the process with the right status. */
export async function run(spec: () => Promise<void>): Promise<never> {
  try {
    await spec();
    process.exit(0);
  } catch (error) {
    tell({ event: "failed", text: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}

/** Waits until `condition` answers something; looks every 100 ms. */
export async function until<T>(
  what: string,
  limitMs: number,
  condition: () => Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + limitMs;
  for (;;) {
    const answer = await condition();
    if (answer !== undefined) return answer;
    if (performance.now() > end) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
