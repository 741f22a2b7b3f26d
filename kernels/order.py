"""Row order and equal rows: what makes the result independent of how bronze was cut into files."""

import numpy as np

from tickstate.kernels._jit import Bytes, Int, Ints, Offsets, OutBytes, OutInts, helper, kernel


@kernel
def first_disorder(capture_ts: Ints, timestamp: Ints, nonce: Ints, out: OutInts) -> None:
    """out[0] = the first row whose key (capture_ts, timestamp, nonce) is below the row before, or n."""
    n = capture_ts.shape[0]
    out[0] = n
    for i in range(1, n):
        if capture_ts[i] > capture_ts[i - 1]:
            continue
        if capture_ts[i] == capture_ts[i - 1]:
            if timestamp[i] > timestamp[i - 1]:
                continue
            if timestamp[i] == timestamp[i - 1] and nonce[i] >= nonce[i - 1]:
                continue
        out[0] = i
        return


@kernel
def scan_times(capture_ts: Ints, carry: OutInts) -> None:
    """Fold a batch of ``capture_ts`` (n) into ``carry`` = [minimum, maximum, rows below the maximum so far]."""
    low, high, late = carry[0], carry[1], carry[2]
    for i in range(capture_ts.shape[0]):
        t = capture_ts[i]
        low = min(low, t)
        if t < high:
            late += 1
        else:
            high = t
    carry[0], carry[1], carry[2] = low, high, late


@helper
def mix(h, x):
    """One step of a 64-bit multiply-xor hash (constant of SplitMix64: Steele, Lea, Flood 2014)."""
    h = (h ^ x) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(29))


@kernel
def hash_lists(offsets: Ints, bits: Ints, out: OutInts) -> None:
    """Fold list i of ``offsets`` (n + 1) into ``bits`` (64-bit patterns) into the hash ``out[i]`` (n)."""
    for i in range(out.shape[0]):
        h = mix(np.uint64(out[i]), np.uint64(offsets[i + 1] - offsets[i]))
        for j in range(offsets[i], offsets[i + 1]):
            h = mix(h, np.uint64(bits[j]))
        out[i] = np.int64(h)


@kernel
def find_repeats(capture_ts: Ints, hashes: Ints, out: OutInts) -> None:
    """out[i] = the first row of the same ``capture_ts`` with the same hash as row i, or i itself.

    n rows, those of one ``capture_ts`` together. O(1) a row however many share a time: an open-addressing
    table that is emptied by moving on its generation (the row a group begins at), never by clearing.
    """
    n = capture_ts.shape[0]
    widest, run = 1, 1
    for i in range(1, n):
        run = run + 1 if capture_ts[i] == capture_ts[i - 1] else 1
        widest = max(widest, run)
    size = 4
    while size < 2 * widest:
        size *= 2
    holder, generation = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    group = 0
    for i in range(n):
        if i > 0 and capture_ts[i] != capture_ts[i - 1]:
            group = i
        slot = np.int64(mix(np.uint64(0), np.uint64(hashes[i])) & np.uint64(size - 1))
        while generation[slot] == group and hashes[holder[slot]] != hashes[i]:
            slot = (slot + 1) & (size - 1)
        if generation[slot] != group:
            holder[slot], generation[slot] = i, group
        out[i] = holder[slot]


@kernel
def confirm_repeats(first: Ints, offsets: Ints, bits: Ints, out: OutBytes) -> None:
    """Clear out[i] (n) where list i differs from list ``first[i]``: equal hashes are no proof."""
    for i in range(first.shape[0]):
        j = first[i]
        width = offsets[i + 1] - offsets[i]
        if offsets[j + 1] - offsets[j] != width:
            out[i] = 0
            continue
        for c in range(width):
            if bits[offsets[i] + c] != bits[offsets[j] + c]:
                out[i] = 0
                break


@kernel
def hash_texts(offsets: Offsets, data: Bytes, out: OutInts) -> None:
    """Fold text i of ``data``, delimited by ``offsets`` (n + 1), into the hash ``out[i]`` (n)."""
    for i in range(out.shape[0]):
        h = mix(np.uint64(out[i]), np.uint64(offsets[i + 1] - offsets[i]))
        for j in range(offsets[i], offsets[i + 1]):
            h = mix(h, np.uint64(data[j]))
        out[i] = np.int64(h)


@kernel
def find_recent(times: Ints, high: Ints, low: Ints, window: Int, out: OutBytes) -> None:
    """out[i] = 1 where the last earlier row of the same (high, low) is at most ``window`` older; n rows, in order.

    One open-addressing table from key to its last row: O(1) a row.
    """
    n = times.shape[0]
    size = 4
    while size < 2 * n:
        size *= 2
    last = np.full(size, -1, np.int64)
    for i in range(n):
        slot = np.int64(mix(np.uint64(low[i]), np.uint64(high[i])) & np.uint64(size - 1))
        while last[slot] >= 0 and (high[last[slot]] != high[i] or low[last[slot]] != low[i]):
            slot = (slot + 1) & (size - 1)
        out[i] = 1 if last[slot] >= 0 and times[i] - times[last[slot]] <= window else 0
        last[slot] = i
