"""A small JPEG writer that can do what usual encoders cannot.

It starts from coefficients and writes any sampling factors, any scans (sequential or progressive), restart
intervals, tables of its own, 16-bit quantization, and headers as told. It is slow and meant for small pictures.
"""

import collections
import heapq
import math
import struct

import numpy

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))
COSINES = numpy.array(
    [[(math.sqrt(1 / 8) if u == 0 else 0.5) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)] for u in range(8)]
)


class Component:
    """One component: its quantized coefficients, block by block, in the order of the file."""

    def __init__(self, ident, h, v, table, plane, quantization, frame_size, largest):
        width, height = frame_size
        self.ident, self.h, self.v, self.table = ident, h, v, table
        self.blocks_wide = -(-(-(-width * h // largest[0])) // 8)
        self.blocks_high = -(-(-(-height * v // largest[1])) // 8)
        units_wide, units_high = (-(-size // (8 * most)) for size, most in zip(frame_size, largest))
        self.padded_wide, self.padded_high = units_wide * h, units_high * v
        samples = numpy.zeros((self.padded_high * 8, self.padded_wide * 8))
        rows = numpy.minimum(numpy.arange(samples.shape[0]) * plane.shape[0] // max(1, self.blocks_high * 8), plane.shape[0] - 1)
        columns = numpy.minimum(numpy.arange(samples.shape[1]) * plane.shape[1] // max(1, self.blocks_wide * 8), plane.shape[1] - 1)
        samples[:] = plane[rows][:, columns] - 128.0
        blocks = samples.reshape(self.padded_high, 8, self.padded_wide, 8).transpose(0, 2, 1, 3)
        spectra = COSINES @ blocks @ COSINES.T
        scaled = numpy.round(spectra.reshape(self.padded_high, self.padded_wide, 64) / numpy.array(quantization).reshape(64))
        self.coefficients = scaled.astype(int)[:, :, ZIGZAG]


class Bits:
    """Bits of a scan, with bytes stuffed."""

    def __init__(self):
        self.out = bytearray()
        self.value, self.count = 0, 0

    def put(self, value, count):
        self.value = self.value << count | value & (1 << count) - 1
        self.count += count
        while self.count >= 8:
            self.count -= 8
            byte = self.value >> self.count & 255
            self.out.append(byte)
            if byte == 255:
                self.out.append(0)
        self.value &= (1 << self.count) - 1

    def flush(self):
        if self.count:
            self.put(255, 8 - self.count)


def huffman_table(frequencies):
    """Code lengths of at most 16 bits (counts, symbols), by the usual construction; one code point stays free."""
    heap = [(count, index, (symbol,)) for index, (symbol, count) in enumerate(sorted(frequencies.items()))]
    heap.append((0, -1, (None,)))
    if len(heap) == 2:
        heap.append((0, -2, (256,)))
    heapq.heapify(heap)
    lengths = collections.Counter()
    serial = 1000
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        serial += 1
        heapq.heappush(heap, (a + b, serial, left + right))
    counts = [0] * 64
    for length in lengths.values():
        counts[length] += 1
    for length in range(63, 16, -1):
        while counts[length]:
            shorter = length - 2
            while not counts[shorter]:
                shorter -= 1
            counts[length] -= 2
            counts[length - 1] += 1
            counts[shorter + 1] += 2
            counts[shorter] -= 1
    longest = max(index for index, count in enumerate(counts) if count)
    counts[longest] -= 1
    symbols = sorted((symbol for symbol in lengths if symbol not in (None,)), key=lambda symbol: (lengths[symbol], symbol))
    return counts[1:17], [symbol & 255 for symbol in symbols]


def flat_table():
    """Every symbol in eight or nine bits."""
    return [0, 0, 0, 0, 0, 0, 0, 255, 1] + [0] * 7, list(range(256))


def codes(table):
    result, code, index = {}, 0, 0
    for length, count in enumerate(table[0], 1):
        for symbol in table[1][index : index + count]:
            result.setdefault(symbol, (code, length))
            code += 1
        index += count
        code <<= 1
    return result


def size_of(value):
    return abs(int(value)).bit_length()


def magnitude(value):
    size = size_of(value)
    return (value if value >= 0 else value + (1 << size) - 1), size


class Tokens:
    """What a scan says: symbols with the bits behind them, in segments between restart markers."""

    def __init__(self):
        self.segments = [[]]

    def symbol(self, kind, symbol, value=0, size=0):
        self.segments[-1].append((kind, symbol, value, size))

    def bits(self, value, size):
        self.segments[-1].append((None, None, value, size))


def sequential_block(tokens, kinds, block, prediction):
    difference = int(block[0]) - prediction
    value, size = magnitude(difference)
    tokens.symbol(kinds[0], size, value, size)
    run = 0
    last = max((k for k in range(1, 64) if block[k]), default=0)
    for k in range(1, last + 1):
        if not block[k]:
            run += 1
            continue
        while run > 15:
            tokens.symbol(kinds[1], 0xF0)
            run -= 16
        value, size = magnitude(int(block[k]))
        tokens.symbol(kinds[1], run << 4 | size, value, size)
        run = 0
    if last < 63:
        tokens.symbol(kinds[1], 0)
    return int(block[0])


def shifted(value, low):
    return abs(int(value)) >> low if value >= 0 else -(abs(int(value)) >> low)


class EmptyRun:
    """Blocks without coefficients, told together; in refinements with the bits of known ones behind."""

    def __init__(self, tokens, kind):
        self.tokens, self.kind, self.count, self.pending = tokens, kind, 0, []

    def flush(self):
        if self.count:
            size = self.count.bit_length() - 1
            self.tokens.symbol(self.kind, size << 4, self.count - (1 << size), size)
            self.count = 0
        for bit in self.pending:
            self.tokens.bits(bit, 1)
        self.pending = []

    def add(self, corrections=()):
        self.count += 1
        self.pending += corrections
        if self.count == 0x7FFF or len(self.pending) > 900:
            self.flush()


def band_first(tokens, kind, block, start, end, low, run_state):
    run = 0
    for k in range(start, end + 1):
        value = shifted(block[k], low)
        if not value:
            run += 1
            continue
        run_state.flush()
        while run > 15:
            tokens.symbol(kind, 0xF0)
            run -= 16
        bits, size = magnitude(value)
        tokens.symbol(kind, run << 4 | size, bits, size)
        run = 0
    if run:
        run_state.add()


def band_refine(tokens, kind, block, start, end, low, run_state):
    values = [abs(int(block[k])) >> low for k in range(start, end + 1)]
    last_new = max((i for i, value in enumerate(values) if value == 1), default=-1)
    run, corrections = 0, []
    for i, value in enumerate(values):
        if value == 0:
            run += 1
            continue
        while run > 15 and i <= last_new:
            run_state.flush()
            tokens.symbol(kind, 0xF0)
            run -= 16
            for bit in corrections:
                tokens.bits(bit, 1)
            corrections = []
        if value > 1:
            corrections.append(value & 1)
            continue
        run_state.flush()
        tokens.symbol(kind, run << 4 | 1, int(block[start + i] > 0), 1)
        for bit in corrections:
            tokens.bits(bit, 1)
        run, corrections = 0, []
    if run or corrections:
        run_state.add(corrections)


def scan_tokens(components, scan, restart, is_progressive):
    """`scan`: (indices, start, end, high, low)."""
    indices, start, end, high, low = scan
    tokens = Tokens()
    predictions = dict.fromkeys(indices, 0)
    run_state = EmptyRun(tokens, ("ac", indices[0]))

    def one(index, block):
        kinds = ("dc", index), ("ac", index)
        if not is_progressive:
            predictions[index] = sequential_block(tokens, kinds, block, predictions[index])
        elif start == 0 and high == 0:
            value = int(block[0]) >> low
            bits, size = magnitude(value - predictions[index])
            tokens.symbol(kinds[0], size, bits, size)
            predictions[index] = value
        elif start == 0:
            tokens.bits(int(block[0]) >> low & 1, 1)
        else:
            (band_refine if high else band_first)(tokens, kinds[1], block, start, end, low, run_state)

    units = []
    if len(indices) == 1:
        part = components[indices[0]]
        units = [[(indices[0], y, x)] for y in range(part.blocks_high) for x in range(part.blocks_wide)]
    else:
        first = components[indices[0]]
        for row in range(first.padded_high // first.v):
            for column in range(first.padded_wide // first.h):
                units.append(
                    [
                        (i, row * components[i].v + y, column * components[i].h + x)
                        for i in indices
                        for y in range(components[i].v)
                        for x in range(components[i].h)
                    ]
                )
    for number, unit in enumerate(units):
        if restart and number and number % restart == 0:
            run_state.flush()
            tokens.segments.append([])
            predictions = dict.fromkeys(indices, 0)
        for index, y, x in unit:
            one(index, components[index].coefficients[y, x])
    run_state.flush()
    return tokens


def segment(code, body):
    return bytes([255, code]) + struct.pack(">H", len(body) + 2) + bytes(body)


def write_tokens(tokens, tables):
    out = bytearray()
    for number, entries in enumerate(tokens.segments):
        if number:
            out += bytes([255, 0xD0 + (number - 1) % 8])
        bits = Bits()
        for kind, symbol, value, size in entries:
            if kind:
                bits.put(*tables[kind][symbol])
            if size:
                bits.put(int(value), size)
        bits.flush()
        out += bits.out
    return bytes(out)


def write(size, components, scans, quantizations, *, progressive=False, sof=None, restart=0, tables="own", heads=(), wide=False):
    """A whole file. `tables`: "own" (counted for each scan) or "flat"; `heads`: segments put before all others."""
    out = bytearray(b"\xff\xd8")
    for head in heads:
        out += head
    for number, table in enumerate(quantizations):
        values = [int(table[k]) for k in ZIGZAG]
        is_wide = wide or max(values) > 255
        out += segment(0xDB, bytes([number | is_wide << 4]) + struct.pack(">64H" if is_wide else "64B", *values))
    listed = b"".join(bytes([c.ident, c.h << 4 | c.v, c.table]) for c in components)
    out += segment(sof or (0xC2 if progressive else 0xC1), struct.pack(">BHHB", 8, size[1], size[0], len(components)) + listed)
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    for scan in scans:
        tokens = scan_tokens(components, scan, restart, progressive)
        counted = collections.defaultdict(collections.Counter)
        for entries in tokens.segments:
            for kind, symbol, _, _ in entries:
                if kind:
                    counted[kind][symbol] += 1
        slots, used = {}, collections.Counter()
        codebook = {}
        for kind in sorted(counted):
            table = flat_table() if tables == "flat" and kind[0] == "ac" else huffman_table(counted[kind])
            slots[kind] = used[kind[0]] % 4
            used[kind[0]] += 1
            codebook[kind] = codes(table)
            out += segment(0xC4, bytes([slots[kind] | (16 if kind[0] == "ac" else 0)] + table[0] + table[1]))
        named = b"".join(bytes([components[i].ident, slots.get(("dc", i), 0) << 4 | slots.get(("ac", i), 0)]) for i in scan[0])
        band = bytes([scan[1], scan[2], scan[3] << 4 | scan[4]])
        out += segment(0xDA, bytes([len(scan[0])]) + named + band)
        out += write_tokens(tokens, codebook)
    return bytes(out + b"\xff\xd9")
