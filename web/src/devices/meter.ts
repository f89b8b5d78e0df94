/**
 * How loud a microphone is, for the bar in the lobby. Used before joining only.
 */

/** Readings a second. */
export const READINGS_HZ = 15;

/** Calls `level` with 0 (silence) to 1 (loud) until the returned function is called. */
export function meter(track: MediaStreamTrack, level: (value: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);

  // Browsers keep a context silent until the person touches the page.
  const resume = () => void context.resume().catch(() => undefined);
  resume();
  addEventListener("pointerdown", resume);
  addEventListener("keydown", resume);

  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    level(loudness(samples));
  }, 1_000 / READINGS_HZ);
  return () => {
    clearInterval(timer);
    removeEventListener("pointerdown", resume);
    removeEventListener("keydown", resume);
    void context.close();
  };
}

/** The loudness of samples from -1 to 1 on a scale from -60 dB (0) to full level (1). */
export function loudness(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const decibels = 10 * Math.log10(sum / Math.max(1, samples.length));
  return Math.min(1, Math.max(0, 1 + decibels / 60));
}
