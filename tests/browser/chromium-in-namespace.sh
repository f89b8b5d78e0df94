#!/bin/sh
# Starts Chromium inside the network namespace that CASTLING_NETNS names, on the file descriptors
# of the caller. The kernel kills it when the caller ends.
exec setpriv --pdeathsig KILL ip netns exec "$CASTLING_NETNS" "${CASTLING_CHROMIUM:-chromium}" "$@"
