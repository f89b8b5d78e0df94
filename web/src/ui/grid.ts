/** How large the tiles are, so that they fill the window. */

/** A tile's size in pixels. */
export interface TileSize {
  readonly width: number;
  readonly height: number;
}

/** The space between two tiles, in pixels. */
export const GAP = 12;
/**
 * No tile is taller than this, as width divided by height, or flatter: cameras send 4:3, and
 * cutting more off would cut heads.
 */
export const ASPECT_MIN = 0.8;
export const ASPECT_MAX = 1.6;

/** The largest size at which `count` tiles fit into `width` by `height` pixels. */
export function tileSize(count: number, width: number, height: number): TileSize {
  let best: TileSize = { width: 0, height: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const cell = {
      width: (width - GAP * (columns - 1)) / columns,
      height: (height - GAP * (rows - 1)) / rows,
    };
    const size = {
      width: Math.floor(Math.max(0, Math.min(cell.width, cell.height * ASPECT_MAX))),
      height: Math.floor(Math.max(0, Math.min(cell.height, cell.width / ASPECT_MIN))),
    };
    if (size.width * size.height > best.width * best.height) best = size;
  }
  return best;
}
