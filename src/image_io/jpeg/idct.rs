//! The inverse cosine transform: libjpeg's slow integer method, bit for bit.
//!
//! The method is that of Loeffler, Ligtenberg and Moschytz with 13-bit constants and two bits kept
//! between the passes, as in libjpeg-turbo's jidctint.c; where numbers leave their range it wraps
//! and clamps where the vector form of it does (simd/x86_64/jidctint-avx2.asm), which is the form
//! that people run. Constants are cosines times 2^13, rounded.

/// The coefficients of a block, row by row.
pub(super) type Block = [i16; 64];

/// Positions of coefficients in the order of the file, row by row in the block (T.81, figure 5).
///
/// Entries past the block lead to its last coefficient, so that a run past the end stays inside;
/// whoever decodes one reports it afterwards.
pub(super) const ZIGZAG: [u8; 128] = {
    let mut order = [63; 128];
    let (mut row, mut column, mut index) = (0_usize, 0_usize, 0_usize);
    while index < 64 {
        order[index] = (row * 8 + column) as u8;
        index += 1;
        // Diagonals run up and to the right where row + column is even, down and to the left
        // where it is odd, and turn at the edges.
        let is_rising = (row + column) % 2 == 0;
        if is_rising && column == 7 {
            row += 1;
        } else if is_rising && row == 0 {
            column += 1;
        } else if is_rising {
            (row, column) = (row - 1, column + 1);
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            (row, column) = (row + 1, column - 1);
        }
    }
    order
};

/// The part of a block outside of which all coefficients are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The DC coefficient alone.
    DcOnly,
    /// The first two rows and columns.
    Tiny,
    /// The first four rows and columns.
    Corner,
    /// The first six rows and columns.
    Most,
    /// Everything.
    Whole,
}

impl Extent {
    /// The extent of the first `count` coefficients in the order of the file.
    #[inline(always)]
    pub(super) fn of_first(count: usize) -> Self {
        match count {
            0..=1 => Self::DcOnly,
            2..=3 => Self::Tiny,
            4..=10 => Self::Corner,
            11..=21 => Self::Most,
            _ => Self::Whole,
        }
    }

    /// The extent of a block that is complete in memory.
    pub(super) fn of(block: &Block) -> Self {
        let (rows, _) = block.as_chunks::<8>();
        let mut corner = 0;
        let mut outside = 0;
        for (index, row) in rows.iter().enumerate() {
            let [a, b, c, d, right @ ..] = row;
            outside |= right.iter().fold(0, |or, value| or | value);
            if index < 4 {
                corner |= b | c | d | if index == 0 { 0 } else { *a };
            } else {
                outside |= a | b | c | d;
            }
        }
        match (outside, corner) {
            (0, 0) => Self::DcOnly,
            (0, _) => Self::Corner,
            _ => Self::Whole,
        }
    }
}

// cos and sin combinations of the method, times 2^13 (jidctint.c, FIX_…).
const F_0_298: i16 = 2446;
const F_0_390: i16 = 3196;
const F_0_541: i16 = 4433;
const F_0_765: i16 = 6270;
const F_0_899: i16 = 7373;
const F_1_175: i16 = 9633;
const F_1_501: i16 = 12299;
const F_1_847: i16 = 15137;
const F_1_961: i16 = 16069;
const F_2_053: i16 = 16819;
const F_2_562: i16 = 20995;
const F_3_072: i16 = 25172;

/// Bits that the first pass keeps below the point.
const PASS1_BITS: i32 = 2;

/// Turns coefficients into eight rows of eight samples.
#[inline(always)]
pub(super) fn inverse(block: &Block, table: &Block, extent: Extent) -> [[u8; 8]; 8] {
    match extent {
        Extent::DcOnly => [[dc_only(block[0], table[0]); 8]; 8],
        Extent::Tiny => transform::<2>(block, table),
        Extent::Corner => transform::<4>(block, table),
        Extent::Most => transform::<6>(block, table),
        Extent::Whole => transform::<8>(block, table),
    }
}

/// The one value of a block that has nothing but its DC coefficient.
///
/// The first pass shifts left by two, wrapping, the second gives (x · 2^13 + 2^17) >> 18, which is
/// (x + 16) >> 5.
#[inline(always)]
fn dc_only(coefficient: i16, factor: i16) -> u8 {
    let column = coefficient.wrapping_mul(factor) << PASS1_BITS;
    let value = (i32::from(column) + 16) >> 5;
    (value.clamp(-128, 127) + 128) as u8
}

/// Eight numbers for each of the eight places of a pass.
type Lanes = [[i16; 8]; 8];

/// Both passes, for blocks whose coefficients lie in the first `N` rows and columns.
#[inline(always)]
fn transform<const N: usize>(block: &Block, table: &Block) -> [[u8; 8]; 8] {
    let (rows, _) = block.as_chunks::<8>();
    let (factors, _) = table.as_chunks::<8>();
    let mut input = [[0; 8]; 8];
    let mut shifted_out = 0;
    for ((lanes, row), factor) in input.iter_mut().zip(rows).zip(factors).take(N) {
        for ((lane, value), factor) in lanes.iter_mut().zip(row).zip(factor) {
            *lane = value.wrapping_mul(*factor);
        }
    }
    for value in input[0] {
        shifted_out |= (value << PASS1_BITS >> PASS1_BITS) ^ value;
    }
    let mut columns = [[0; 8]; 8];
    // Where only the first row has coefficients, the assembly shifts it and does not clamp. That
    // differs from the full pass for values that the shift wraps, and only then.
    if shifted_out != 0 && block.iter().skip(8).all(|value| *value == 0) {
        columns = [input[0].map(|value| value << PASS1_BITS); 8];
    } else {
        pass::<N, N, 11>(&input, |place, lane, value| columns[place][lane] = value);
    }
    let turned = transposed::<N>(&columns);
    let mut samples = [[0_u8; 8]; 8];
    pass::<N, 8, 18>(&turned, |place, lane, value| {
        samples[place][lane] = (value.clamp(-128, 127) + 128) as u8;
    });
    transposed_bytes(&samples)
}

/// One pass over the first `LANES` lanes; places from `N` on are known to be zero. `SHIFT` is 13 less the
/// bits that are kept, or plus those that are dropped and the three of the transform's gain.
#[allow(
    clippy::needless_range_loop,
    reason = "a lane is an index into the inner arrays of eight places, which no iterator gives"
)]
#[inline(always)]
fn pass<const N: usize, const LANES: usize, const SHIFT: u32>(
    input: &Lanes,
    mut put: impl FnMut(usize, usize, i16),
) {
    for lane in 0..LANES {
        let at = |place: usize| if place < N { input[place][lane] } else { 0 };
        let weighted = |a: i16, x: i16, b: i16, y: i16| {
            (i32::from(a) * i32::from(x)).wrapping_add(i32::from(b) * i32::from(y))
        };
        // Even part: a rotation of 2 and 6, sum and difference of 0 and 4.
        let even3 = weighted(F_0_541 + F_0_765, at(2), F_0_541, at(6));
        let even2 = weighted(F_0_541, at(2), F_0_541 - F_1_847, at(6));
        let even0 = i32::from(at(0).wrapping_add(at(4))) << 13;
        let even1 = i32::from(at(0).wrapping_sub(at(4))) << 13;
        let [sum0, sum3] = [even0.wrapping_add(even3), even0.wrapping_sub(even3)];
        let [sum1, sum2] = [even1.wrapping_add(even2), even1.wrapping_sub(even2)];
        // Odd part, with 7, 5, 3, 1 in that order: z3 and z4 share the products of z5.
        let (in7, in5, in3, in1) = (at(7), at(5), at(3), at(1));
        let (z3, z4) = (in7.wrapping_add(in3), in5.wrapping_add(in1));
        let shared3 = weighted(F_1_175 - F_1_961, z3, F_1_175, z4);
        let shared4 = weighted(F_1_175, z3, F_1_175 - F_0_390, z4);
        let odd0 = weighted(F_0_298 - F_0_899, in7, -F_0_899, in1).wrapping_add(shared3);
        let odd1 = weighted(F_2_053 - F_2_562, in5, -F_2_562, in3).wrapping_add(shared4);
        let odd2 = weighted(-F_2_562, in5, F_3_072 - F_2_562, in3).wrapping_add(shared3);
        let odd3 = weighted(-F_0_899, in7, F_1_501 - F_0_899, in1).wrapping_add(shared4);
        // Halves are rounded up, and the result is clamped to 16 bits.
        let mut descaled = |place: usize, value: i32| {
            let value = value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
            put(
                place,
                lane,
                value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16,
            );
        };
        for (place, sum, odd) in [
            (0, sum0, odd3),
            (1, sum1, odd2),
            (2, sum2, odd1),
            (3, sum3, odd0),
        ] {
            descaled(place, sum.wrapping_add(odd));
            descaled(7 - place, sum.wrapping_sub(odd));
        }
    }
}

/// Swaps the bits of `upper` that stand `SHIFT` above `MASK` with those of `lower` at it.
#[inline(always)]
fn swap<const SHIFT: u32, const MASK: u64>(upper: &mut u64, lower: &mut u64) {
    let apart = (*upper >> SHIFT ^ *lower) & MASK;
    *lower ^= apart;
    *upper ^= apart << SHIFT;
}

/// Rows become columns; columns from `N` on are known to be zero. Four lanes are turned as one
/// number, in two steps of swaps.
#[inline(always)]
fn transposed<const N: usize>(rows: &Lanes) -> Lanes {
    let mut columns = [[0; 8]; 8];
    for top in [0, 4] {
        for left in (0..N).step_by(4) {
            let mut words = [0_u64; 4];
            for (index, word) in words.iter_mut().enumerate() {
                for lane in 0..4 {
                    *word |= u64::from(rows[top + index][left + lane] as u16) << (16 * lane);
                }
            }
            let [a, b, c, d] = &mut words;
            swap::<16, 0x0000_FFFF_0000_FFFF>(a, b);
            swap::<16, 0x0000_FFFF_0000_FFFF>(c, d);
            swap::<32, 0x0000_0000_FFFF_FFFF>(a, c);
            swap::<32, 0x0000_0000_FFFF_FFFF>(b, d);
            for (index, word) in words.iter().enumerate() {
                for lane in 0..4 {
                    columns[left + index][top + lane] = (word >> (16 * lane)) as i16;
                }
            }
        }
    }
    columns
}

/// Rows become columns: eight bytes are turned as one number, in three steps of swaps.
#[inline(always)]
fn transposed_bytes(rows: &[[u8; 8]; 8]) -> [[u8; 8]; 8] {
    let mut words = [0_u64; 8];
    for (word, row) in words.iter_mut().zip(rows) {
        *word = u64::from_le_bytes(*row);
    }
    let [a, b, c, d, e, f, g, h] = &mut words;
    for (upper, lower) in [(&mut *a, &mut *b), (c, d), (e, f), (g, h)] {
        swap::<8, 0x00FF_00FF_00FF_00FF>(upper, lower);
    }
    let [a, b, c, d, e, f, g, h] = &mut words;
    for (upper, lower) in [(a, c), (b, d), (e, g), (f, h)] {
        swap::<16, 0x0000_FFFF_0000_FFFF>(upper, lower);
    }
    let [a, b, c, d, e, f, g, h] = &mut words;
    for (upper, lower) in [(a, e), (b, f), (c, g), (d, h)] {
        swap::<32, 0x0000_0000_FFFF_FFFF>(upper, lower);
    }
    words.map(u64::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of numbers that repeat.
    fn noise(seed: &mut u64) -> i16 {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 48) as i16
    }

    /// The transform as jidctint.c states it: one number at a time, 32 bits, no wrapping.
    fn plain(block: &Block, table: &Block) -> [[u8; 8]; 8] {
        let mut values = [0_i32; 64];
        for index in 0..64 {
            values[index] = i32::from(block[index]) * i32::from(table[index]);
        }
        for column in 0..8 {
            plain_pass(&mut values, column, 8, 11);
        }
        for row in 0..8 {
            plain_pass(&mut values, row * 8, 1, 18);
        }
        std::array::from_fn(|row| {
            std::array::from_fn(|column| (values[row * 8 + column] + 128).clamp(0, 255) as u8)
        })
    }

    fn plain_pass(values: &mut [i32; 64], start: usize, step: usize, shift: i32) {
        let [c0, c1, c2, c3, c4, c5, c6, c7]: [i32; 8] =
            std::array::from_fn(|index| values[start + index * step]);
        let z1 = (c2 + c6) * 4433;
        let (even2, even3) = (z1 - c6 * 15137, z1 + c2 * 6270);
        let (even0, even1) = ((c0 + c4) << 13, (c0 - c4) << 13);
        let sums = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];
        let z5 = (c7 + c3 + c5 + c1) * 9633;
        let (z1, z2) = ((c7 + c1) * -7373, (c5 + c3) * -20995);
        let (z3, z4) = ((c7 + c3) * -16069 + z5, (c5 + c1) * -3196 + z5);
        let odds = [
            c1 * 12299 + z1 + z4,
            c3 * 25172 + z2 + z3,
            c5 * 16819 + z2 + z4,
            c7 * 2446 + z1 + z3,
        ];
        for index in 0..4 {
            let half = 1 << (shift - 1);
            values[start + index * step] = (sums[index] + odds[index] + half) >> shift;
            values[start + (7 - index) * step] = (sums[index] - odds[index] + half) >> shift;
        }
    }

    #[test]
    fn vectors_give_what_the_plain_formula_gives() {
        let mut seed = 7;
        for round in 0..3000_u32 {
            let mut block = [0; 64];
            let mut table = [1; 64];
            for factor in &mut table {
                *factor = noise(&mut seed).rem_euclid(40) + 1;
            }
            let kept = [1, 2, 3, 6, 10, 11, 30, 64][round as usize % 8];
            for position in ZIGZAG.iter().take(kept) {
                let place = usize::from(*position);
                block[place] =
                    noise(&mut seed) % (1000 / table[place] / if kept > 10 { 8 } else { 2 }).max(1);
            }
            let extent = Extent::of_first(kept);
            assert_eq!(
                inverse(&block, &table, extent),
                plain(&block, &table),
                "{round}"
            );
            assert_eq!(
                inverse(&block, &table, Extent::of(&block)),
                plain(&block, &table)
            );
        }
    }

    #[test]
    fn every_dc_value_gives_a_flat_block_like_the_full_transform() {
        for coefficient in i16::MIN..=i16::MAX {
            let mut block = [0; 64];
            block[0] = coefficient;
            let value = dc_only(coefficient, 3);
            assert_eq!(
                transform::<8>(&block, &[3; 64]),
                [[value; 8]; 8],
                "{coefficient}"
            );
        }
    }

    #[test]
    fn the_zigzag_order_ends_where_the_standard_says() {
        assert_eq!(ZIGZAG[..10], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]);
        assert_eq!(ZIGZAG[56..66], [53, 60, 61, 54, 47, 55, 62, 63, 63, 63]);
        let mut sorted: Vec<u8> = ZIGZAG[..64].to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..64).collect::<Vec<u8>>());
    }
}
