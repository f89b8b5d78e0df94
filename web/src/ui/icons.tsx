/** The page's drawings. All are decoration: the words beside them or the labels around them say it. */
import type { ComponentChildren } from "preact";

/** The mark: a king that has castled, with the rook beside it. */
export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 48 48" aria-hidden="true" focusable="false">
      <rect class="mark-board" width="48" height="48" rx="11" />
      <path
        class="mark-rook"
        d="M6 14h3.8v3h3.3v-3h3.8v3h3.3v-3H24v7.2l-2.8 2.4v8.2l3.3 3.7V40H5.5v-4.5l3.3-3.700v-8.200L6 21.200z"
      />
      <path
        class="mark-king"
        d="M33.3 5.5h3v2.8h3.1v2.9h-3.1v3.4c4.4-.9 7.4 1.6 7.4 5 0 3.2-2.3 5.6-4.3 8.4l-.8 4 3.4 3.5V40H27.6v-4.5l3.4-3.5-.8-4c-2-2.8-4.3-5.2-4.3-8.4 0-3.4 3-5.9 7.4-5v-3.4h-3.1V8.3h3.1z"
      />
    </svg>
  );
}

/** What the icons show. */
export type IconName = keyof typeof DRAWINGS;

/** A line drawing of 24 by 24. */
export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {DRAWINGS[name]}
    </svg>
  );
}

const MICROPHONE = (
  <>
    <rect x="9" y="3" width="6" height="11" rx="3" />
    <path d="M5.5 11.500a6.5 6.5 0 0 0 13 0M12 18v3" />
  </>
);
const CAMERA = (
  <>
    <rect x="3" y="6.5" width="12" height="11" rx="2.5" />
    <path d="m15 11 5.5-3.500v9L15 13z" />
  </>
);
const SLASH = <path d="M4 4l16 16" />;

const DRAWINGS = {
  mic: MICROPHONE,
  "mic-off": (
    <>
      {MICROPHONE}
      {SLASH}
    </>
  ),
  cam: CAMERA,
  "cam-off": (
    <>
      {CAMERA}
      {SLASH}
    </>
  ),
  leave: (
    <path d="M3.5 14.500c-.8-1.9-.3-3.4 1.2-4.3 4.6-2.7 10-2.7 14.6 0 1.5.9 2 2.4 1.2 4.3-.4.9-1.3 1.2-2.2.8l-2.2-1c-.7-.3-1.1-.9-1.1-1.600v-1.200a13 13 0 0 0-6 0v1.200c0 .7-.4 1.3-1.1 1.600l-2.2 1c-.9.4-1.8.1-2.2-.8z" />
  ),
  link: (
    <>
      <path d="M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.300l-1 1" />
      <path d="M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.700l1-1" />
    </>
  ),
  devices: (
    <>
      <path d="M4 7h9M19 7h1M4 17h1M11 17h9" />
      <circle cx="16" cy="7" r="2.5" />
      <circle cx="8" cy="17" r="2.5" />
    </>
  ),
  sound: (
    <>
      <path d="M4 10v4h3.500L12 18V6L7.5 10z" />
      <path d="M15.5 9a4.2 4.2 0 0 1 0 6M18 6.500a8 8 0 0 1 0 11" />
    </>
  ),
  close: <path d="M6 6l12 12M18 6 6 18" />,
  check: <path d="m5 12.5 4.5 4.500L19 7.5" />,
} satisfies Record<string, ComponentChildren>;
