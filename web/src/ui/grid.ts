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
export const ASPECT_MIN = 0.7;
export const ASPECT_MAX = 1.6;
/** The shape of what cameras send. */
const CAMERA_ASPECT = 4 / 3;
/** How much less a tile is worth for the part of the picture that it cuts off. */
const CUT_WEIGHT = 0.25;

/** The size at which `count` tiles fit into `width` by `height` pixels and show the most. */
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
    if (worthOf(size) > worthOf(best)) best = size;
  }
  return best;
}

function worthOf({ width, height }: TileSize): number {
  if (width === 0 || height === 0) return 0;
  const ratio = width / height / CAMERA_ASPECT;
  const cut = 1 - Math.min(ratio, 1 / ratio);
  return width * height * (1 - CUT_WEIGHT * cut);
}
