//! The instruction sets that the kernels have code for, and the choice between them at run time.
//!
//! One choice holds for the whole process: the best that the machine has, unless somebody chose another
//! one before the first kernel ran. Weights are packed for it, and every kernel asks for it.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// What holds for this process.
static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();

/// The instruction sets that have code of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust, vectorised by the compiler as far as the target's baseline goes.
    Portable,
    /// Arm's 128-bit vectors.
    Neon,
    /// The same with the byte dot product.
    NeonDot,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// The same with the byte dot product (AVX-VNNI).
    AvxVnni,
    /// 512-bit vectors.
    Avx512,
    /// The same with the byte dot product.
    Avx512Vnni,
    /// The same with the bf16 dot product too.
    Avx512Bf16,
}

/// Code that the compiler makes of one portable text (`simd.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The target's baseline.
    Baseline,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    V3,
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    V4,
}

impl InstructionSet {
    /// All that there is code for on some machine.
    const ALL: [Self; 8] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
    ];

    /// The one that this process computes with: the chosen one, else the best that the machine has.
    #[must_use]
    pub fn detect() -> Self {
        *CHOSEN.get_or_init(Self::by_default)
    }

    /// Makes this the one that the process computes with. False when it computes with another one
    /// already.
    ///
    /// # Panics
    /// When the machine does not have it.
    pub fn choose(self) -> bool {
        assert!(Self::available().contains(&self));
        *CHOSEN.get_or_init(|| self) == self
    }

    #[cfg(not(test))]
    fn by_default() -> Self {
        Self::best()
    }

    /// In unit tests a variable may choose.
    #[cfg(test)]
    fn by_default() -> Self {
        tests::asked_for().unwrap_or_else(Self::best)
    }

    fn best() -> Self {
        *Self::available().last().unwrap_or(&Self::Portable)
    }

    /// All that this machine has, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected as has;
            sets.push(Self::Neon);
            if has!("dotprod") {
                sets.push(Self::NeonDot);
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                sets.push(Self::Avx2);
                if has!("avxvnni") {
                    sets.push(Self::AvxVnni);
                }
            }
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                sets.push(Self::Avx512);
                if has!("avx512vnni") {
                    sets.push(Self::Avx512Vnni);
                    if has!("avx512bf16") {
                        sets.push(Self::Avx512Bf16);
                    }
                }
            }
        }
        sets
    }

    /// As flags spell it.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// In words, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "no vector instructions that are known",
            Self::Neon => "NEON",
            Self::NeonDot => "NEON with byte dot products",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX2 with byte dot products",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 with byte dot products",
            Self::Avx512Bf16 => "AVX-512 with bf16 and byte dot products",
        }
    }

    /// What the compiler may use of it in portable code.
    pub(super) fn level(self) -> Level {
        match self {
            Self::Portable | Self::Neon | Self::NeonDot => Level::Baseline,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::AvxVnni => Level::V3,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx512Vnni | Self::Avx512Bf16 => Level::V4,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Level::Baseline,
        }
    }

    /// Whether this set multiplies bf16 pairs in one instruction.
    #[must_use]
    pub fn has_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// Whether this set multiplies byte quadruples in one instruction.
    #[must_use]
    pub fn has_int8(self) -> bool {
        matches!(
            self,
            Self::NeonDot | Self::AvxVnni | Self::Avx512Vnni | Self::Avx512Bf16
        )
    }
}

/// Why this machine cannot compute with an instruction set.
#[derive(Debug, thiserror::Error)]
pub enum InstructionSetError {
    /// The text is the name of none.
    #[error("unknown instructions {0:?}: this machine has {has}", has = Here)]
    Unknown(String),
    /// The machine does not have it.
    #[error("this machine has no {words} ({id}): it has {has}", words = .0.name(), id = .0.id(), has = Here)]
    Missing(InstructionSet),
}

/// What this machine has, as flags spell it.
struct Here;

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = InstructionSet::available()
            .into_iter()
            .map(InstructionSet::id);
        f.write_str(&ids.collect::<Vec<_>>().join(", "))
    }
}

impl FromStr for InstructionSet {
    type Err = InstructionSetError;

    /// One that this machine has, by its id.
    fn from_str(text: &str) -> Result<Self, InstructionSetError> {
        let set = Self::ALL.into_iter().find(|set| set.id() == text);
        match set {
            Some(set) if Self::available().contains(&set) => Ok(set),
            Some(set) => Err(InstructionSetError::Missing(set)),
            None => Err(InstructionSetError::Unknown(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FLORENCE2_INSTRUCTIONS=avx2 cargo test --lib` tests the model in that code.
    pub(super) fn asked_for() -> Option<InstructionSet> {
        let text = std::env::var("FLORENCE2_INSTRUCTIONS").ok()?;
        Some(text.parse().expect("FLORENCE2_INSTRUCTIONS"))
    }

    #[test]
    fn ids_are_read_back_where_the_machine_has_the_set() {
        let available = InstructionSet::available();
        for set in InstructionSet::ALL {
            match set.id().parse::<InstructionSet>() {
                Ok(read) => assert!(read == set && available.contains(&set)),
                Err(error) => {
                    assert!(!available.contains(&set), "{error}");
                    let text = error.to_string();
                    assert!(text.contains(set.name()) && text.ends_with(&Here.to_string()));
                }
            }
        }
        assert!(available.contains(&InstructionSet::Portable));
        for text in ["", "avx3", "AVX2", "avx2 "] {
            let error = text.parse::<InstructionSet>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("this machine has portable"), "{error}");
        }
    }

    #[test]
    fn the_choice_holds_once_it_is_made() {
        let chosen = InstructionSet::detect();
        assert!(chosen.choose());
        let other = InstructionSet::available()
            .into_iter()
            .find(|set| *set != chosen);
        assert!(other.is_none_or(|other| !other.choose()));
        assert_eq!(InstructionSet::detect(), chosen);
    }
}
