/** Tracks on the page: one element for each picture and one for each voice. */
import { useEffect, useRef } from "preact/hooks";

/** A picture. Sound has an element of its own, so this one is silent and may start by itself. */
export function Picture({ track, mirrored }: { track: MediaStreamTrack; mirrored?: boolean }) {
  const element = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    const video = element.current;
    if (!video) return;
    video.srcObject = new MediaStream([track]);
    // Refused only if the page is hidden; `autoplay` starts it when it is shown.
    video.play().catch(() => undefined);
    return () => {
      video.srcObject = null;
    };
  }, [track]);
  return (
    <video
      ref={element}
      class={mirrored ? "picture mirrored" : "picture"}
      muted
      autoplay
      playsInline
    />
  );
}

/** A voice, on the speaker with this id (empty for the default). */
export function Voice(props: {
  track: MediaStreamTrack;
  speaker: string;
  /** Changes when the person has clicked to hear. */
  unblocked: boolean;
  onBlocked: () => void;
}) {
  const { track, speaker, unblocked, onBlocked } = props;
  const element = useRef<HTMLAudioElement>(null);
  useEffect(() => {
    const audio = element.current;
    if (!audio) return;
    audio.srcObject = new MediaStream([track]);
    return () => {
      audio.srcObject = null;
    };
  }, [track]);
  // Plays anew for a new track and after a click.
  useEffect(() => {
    element.current?.play().catch((error: unknown) => {
      if (error instanceof DOMException && error.name === "NotAllowedError") onBlocked();
    });
  }, [track, unblocked]);
  useEffect(() => {
    // A speaker that is gone leaves the sound where it is.
    element.current?.setSinkId?.(speaker).catch(() => undefined);
  }, [speaker]);
  // biome-ignore lint/a11y/useMediaCaption: a live voice has no caption track
  return <audio ref={element} autoplay />;
}
