/** Time as the mesh sees it, so that a test can turn it. */
export interface Clock {
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Calls `work` once, `ms` from now, unless the returned function was called before. */
  after(ms: number, work: () => void): () => void;
}
