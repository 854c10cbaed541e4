//! The inner loops: a tile of a product stays in registers while its inputs pass by.
//!
//! `c[r, n] = start[n] [+ c[r, n]] + Σₖ a[r, k]·b[k, n]`, where one step k is 32 bits of every row and
//! every column (see `isa.rs`). Six rows by four 512-bit vectors are 24 sums: enough that no
//! addition waits for the one before, and few enough for the registers with the weights beside them.

use super::format::{Bf16Pairs, Bf16Widened, F32Sums, Format, Int8Sums, Scales, Sums};
use super::isa::Isa;
use super::portable::Portable;
use crate::florence2::kernels::instructions::InstructionSet;

/// Most rows of any tile.
pub(super) const ROWS: usize = 6;
/// Widest vector in lanes: a tile's columns are rounded up to whole vectors.
pub(super) const MAX_LANES: usize = 16;
/// How far ahead weights are asked for that are read once: two rows of a page's worth of lines.
const AHEAD: usize = 4096;

/// Columns of the widest tile of an instruction set; weights are packed in panels of as many.
pub(super) const fn panel_columns(set: InstructionSet) -> usize {
    match set {
        InstructionSet::Avx512 | InstructionSet::Avx512Vnni | InstructionSet::Avx512Bf16 => 64,
        _ => 16,
    }
}

/// One product over one block of inputs.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// The first row's first 32 bits; the next row's are `a_row` bytes on, the next step's `a_step`.
    pub(super) a: *const u8,
    pub(super) a_row: usize,
    pub(super) a_step: usize,
    /// The first step's first column; the next step's are `b_step` bytes on, the next column's 4.
    pub(super) b: *const u8,
    pub(super) b_step: usize,
    pub(super) c: *mut f32,
    /// Elements between rows of `c`.
    pub(super) c_row: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) steps: usize,
    /// One f32 a column, or null.
    pub(super) start: *const f32,
    /// Whether the product is added to what stands in `c`.
    pub(super) adds: bool,
    pub(super) scales: Scales,
}

/// Runs a job in the best code for this machine and format.
///
/// # Safety
/// The machine has `set`. Rows, steps and columns of `a`, `b` and `c` lie in allocations that the
/// caller may read, and write in the case of `c`, which nobody else touches meanwhile. Columns of
/// `b`, `start` and the scales can be read up to the next multiple of [`MAX_LANES`].
pub(super) unsafe fn run(set: InstructionSet, format: Format, job: &Job) {
    macro_rules! entry {
        ($isa:ty, $vectors:literal $(, $feature:literal)?) => {{
            $(#[target_feature(enable = $feature)])?
            fn f32_tiles(job: &Job) {
                // SAFETY: the contract of `run`.
                unsafe { drive::<$isa, F32Sums, $vectors>(job) }
            }
            $(#[target_feature(enable = $feature)])?
            fn bf16_tiles(job: &Job) {
                // SAFETY: the contract of `run`.
                unsafe {
                    if <$isa>::HAS_BF16 {
                        drive::<$isa, Bf16Pairs, $vectors>(job)
                    } else {
                        drive::<$isa, Bf16Widened, $vectors>(job)
                    }
                }
            }
            $(#[target_feature(enable = $feature)])?
            fn int8_tiles(job: &Job) {
                // SAFETY: the contract of `run`.
                unsafe { drive::<$isa, Int8Sums, $vectors>(job) }
            }
            #[allow(unused_unsafe, reason = "the portable code needs no instruction set")]
            // SAFETY: the machine has the instructions, says the caller.
            unsafe {
                match format {
                    Format::F32 => f32_tiles(job),
                    Format::Bf16 => bf16_tiles(job),
                    Format::Int8 => int8_tiles(job),
                }
            }
        }};
    }
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Bf16 => entry!(
            super::avx512::Avx512<true, true>,
            4,
            "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma"
        ),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni => entry!(
            super::avx512::Avx512<false, true>,
            4,
            "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
        ),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => entry!(
            super::avx512::Avx512<false, false>,
            4,
            "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
        ),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::AvxVnni => entry!(super::avx2::Avx2<true>, 2, "avx2,fma,avxvnni"),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => entry!(super::avx2::Avx2<false>, 2, "avx2,fma"),
        #[cfg(target_arch = "aarch64")]
        InstructionSet::NeonDot => entry!(super::neon::Neon<true>, 4, "neon,dotprod"),
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => entry!(super::neon::Neon<false>, 4, "neon"),
        _ => entry!(Portable, 2),
    }
}

/// All tiles of a job: columns outside, so that a panel of weights stays near while rows pass by.
#[inline(always)]
unsafe fn drive<S: Isa, T: Sums<S>, const VECTORS: usize>(job: &Job) {
    let mut column = 0;
    while column < job.columns {
        let left = job.columns - column;
        // SAFETY: the contract of `run`.
        unsafe {
            if left >= VECTORS * S::LANES {
                strip::<S, T, VECTORS>(job, column, VECTORS * S::LANES);
                column += VECTORS * S::LANES;
            } else if VECTORS > 2 && left >= 2 * S::LANES {
                strip::<S, T, 2>(job, column, 2 * S::LANES);
                column += 2 * S::LANES;
            } else {
                strip::<S, T, 1>(job, column, left.min(S::LANES));
                column += S::LANES;
            }
        }
    }
}

/// All rows of the columns from `column` on; `valid` of them are to be written.
#[inline(always)]
unsafe fn strip<S: Isa, T: Sums<S>, const VECTORS: usize>(job: &Job, column: usize, valid: usize) {
    let mut row = 0;
    // Weights that only one tile reads come from memory: they are asked for early.
    let once = job.rows <= T::ROWS;
    while row < job.rows {
        let rows = (job.rows - row).min(T::ROWS);
        // SAFETY: the contract of `run`.
        unsafe {
            match (rows, once) {
                (1, true) => tile::<S, T, 1, VECTORS, true>(job, row, column, valid),
                (2, true) => tile::<S, T, 2, VECTORS, true>(job, row, column, valid),
                (3, true) => tile::<S, T, 3, VECTORS, true>(job, row, column, valid),
                (4, true) => tile::<S, T, 4, VECTORS, true>(job, row, column, valid),
                (1, _) => tile::<S, T, 1, VECTORS, false>(job, row, column, valid),
                (2, _) => tile::<S, T, 2, VECTORS, false>(job, row, column, valid),
                (3, _) => tile::<S, T, 3, VECTORS, false>(job, row, column, valid),
                (4, _) => tile::<S, T, 4, VECTORS, false>(job, row, column, valid),
                (5, _) => tile::<S, T, 5, VECTORS, false>(job, row, column, valid),
                _ => tile::<S, T, ROWS, VECTORS, false>(job, row, column, valid),
            }
        }
        row += rows;
    }
}

#[inline(always)]
unsafe fn tile<S: Isa, T: Sums<S>, const R: usize, const V: usize, const ONCE: bool>(
    job: &Job,
    row: usize,
    column: usize,
    valid: usize,
) {
    // SAFETY: the contract of `run`; a partial tile is written to its own buffer first.
    unsafe {
        let a = job.a.add(row * job.a_row);
        let mut a: [*const u8; R] = std::array::from_fn(|r| a.add(r * job.a_row));
        let mut b = job.b.add(column * 4);
        let mut sums = [[T::zero(); V]; R];
        for _ in 0..job.steps {
            if ONCE {
                let mut line = 0;
                while line < V * S::LANES * 4 {
                    S::prefetch(b.wrapping_add(AHEAD + line));
                    line += 64;
                }
            }
            for part in 0..T::PARTS {
                let weights: [T::Factor; V] =
                    std::array::from_fn(|v| T::weights(b.add(v * S::LANES * 4), part));
                for (sums, a) in sums.iter_mut().zip(&a) {
                    let activation = T::activation(*a, part);
                    for (sum, weights) in sums.iter_mut().zip(&weights) {
                        *sum = T::step(*sum, activation, *weights);
                    }
                }
            }
            for a in &mut a {
                *a = a.wrapping_add(job.a_step);
            }
            b = b.wrapping_add(job.b_step);
        }
        // A copy: what the loops below go through by index would not have stayed in registers above.
        let sums: [[T::Sum; V]; R] = std::array::from_fn(|r| std::array::from_fn(|v| sums[r][v]));
        let is_whole = valid == V * S::LANES;
        let mut partial = [0.0f32; MAX_LANES];
        for (r, sums) in sums.iter().enumerate() {
            let c = job.c.add((row + r) * job.c_row + column);
            if !is_whole && job.adds {
                std::ptr::copy_nonoverlapping(c, partial.as_mut_ptr(), valid);
            }
            let to = if is_whole { c } else { partial.as_mut_ptr() };
            for (v, sum) in sums.iter().enumerate() {
                let at = column + v * S::LANES;
                let mut value = T::finish(*sum, &job.scales, row + r, at);
                if !job.start.is_null() {
                    value = S::add(value, S::load(job.start.add(at)));
                }
                let to = to.add(v * S::LANES);
                if job.adds {
                    value = S::add(value, S::load(to));
                }
                S::store(to, value);
            }
            if !is_whole {
                std::ptr::copy_nonoverlapping(partial.as_ptr(), c, valid);
            }
        }
    }
}
