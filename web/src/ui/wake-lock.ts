/** The screen stays on during the call. */
import { useEffect } from "preact/hooks";

/** Keeps the screen on during the call, where the browser can. */
export function useWakeLock(): void {
  useEffect(() => {
    let lock: WakeLockSentinel | undefined;
    let over = false;
    const request = async () => {
      if (document.visibilityState !== "visible" || over) return;
      // Refused on low battery: then the screen goes dark as usual.
      lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
      if (over) void lock?.release();
    };
    void request();
    document.addEventListener("visibilitychange", request);
    return () => {
      over = true;
      document.removeEventListener("visibilitychange", request);
      void lock?.release();
    };
  }, []);
}
