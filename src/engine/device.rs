//! Which device and dtype the model runs on, and how many CPU threads.

use std::fmt;
use std::str::FromStr;

use std::path::Path;

use candle_core::Device;

use crate::florence2::config::Florence2Config;
use crate::florence2::kernels::packed::InstructionSet;
use crate::florence2::{Dtype, Florence2, LoadError, Quantised, one_line};

/// What the caller asked to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first accelerator this build and machine have, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA card, by its number.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

/// The number format the caller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// The fastest that keeps f32's tokens on the CPU; half precision on an accelerator.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with f32's range.
    Bf16,
    /// 8-bit integers with scales.
    Int8,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The text is none of the known devices.
    #[error("unknown device {0:?}: expected auto, cpu, cuda, cuda:N or metal")]
    UnknownDevice(String),
    /// The text is none of the known dtypes.
    #[error("unknown dtype {0:?}: expected auto, f32, f16, bf16 or int8")]
    UnknownDtype(String),
    /// Integer weights are for the CPU.
    #[error("int8 runs on the CPU only: use --device cpu, or --dtype f16 or bf16")]
    Int8,
    /// This build has no code for the device.
    #[error(
        "this build has no {0} support: build with `cargo build --release --features {0}`, as the README says, or use --device cpu"
    )]
    NotBuilt(&'static str),
    /// The device is there in this build but does not start.
    #[error(
        "cannot use {device}: {}; use --device cpu, or check the driver",
        one_line(source)
    )]
    Unavailable {
        /// The device as the caller names it.
        device: DeviceChoice,
        /// What the driver said.
        source: candle_core::Error,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::UnknownDevice(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err(unknown()),
            },
            // Digits alone: the integer parser would take a sign too.
            Some(("cuda", number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl FromStr for DtypeChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(DeviceError::UnknownDtype(text.to_owned())),
        }
    }
}

impl DeviceChoice {
    /// Opens the device. Returns it with the choice that it came to.
    ///
    /// # Errors
    /// When this build or machine does not have it.
    fn open(self) -> Result<(Device, Self), DeviceError> {
        match self {
            Self::Cpu => Ok((Device::Cpu, Self::Cpu)),
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt("cuda")),
            Self::Metal if !cfg!(feature = "metal") => Err(DeviceError::NotBuilt("metal")),
            Self::Cuda(number) => Self::opened(self, Device::new_cuda(number)),
            Self::Metal => Self::opened(self, Device::new_metal(0)),
            Self::Auto => Ok([Self::Cuda(0), Self::Metal]
                .into_iter()
                .find_map(|choice| choice.open().ok())
                .unwrap_or((Device::Cpu, Self::Cpu))),
        }
    }

    fn opened(self, device: candle_core::Result<Device>) -> Result<(Device, Self), DeviceError> {
        match device {
            Ok(device) => Ok((device, self)),
            Err(source) => Err(DeviceError::Unavailable {
                device: self,
                source,
            }),
        }
    }
}

impl DtypeChoice {
    /// The dtype to load weights in. `auto` is f32 on the CPU, the only dtype that keeps the
    /// reference's tokens there, and f16 on an accelerator.
    ///
    /// # Errors
    /// For int8 on an accelerator.
    fn resolve(self, device: &Device) -> Result<Dtype, DeviceError> {
        match self {
            Self::Auto if device.is_cpu() => Ok(Dtype::F32),
            Self::Auto | Self::F16 => Ok(Dtype::F16),
            Self::F32 => Ok(Dtype::F32),
            Self::Bf16 => Ok(Dtype::Bf16),
            Self::Int8 if device.is_cpu() => Ok(Dtype::Int8),
            Self::Int8 => Err(DeviceError::Int8),
        }
    }
}

/// Where a model goes: an open device and the number format of its weights there.
#[derive(Debug)]
pub struct Placement {
    device: Device,
    dtype: Dtype,
    choice: DeviceChoice,
}

impl Placement {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build or machine has no such device, or the device no such dtype.
    pub fn open(device: DeviceChoice, dtype: DtypeChoice) -> Result<Self, DeviceError> {
        let (device, choice) = device.open()?;
        let dtype = dtype.resolve(&device)?;
        Ok(Self {
            device,
            dtype,
            choice,
        })
    }

    /// Loads a checkpoint folder there.
    ///
    /// # Errors
    /// As [`Florence2::load`].
    pub fn load(&self, folder: &Path) -> Result<Florence2, LoadError> {
        Florence2::load(folder, &self.device, self.dtype)
    }

    /// Makes a model with random weights there, for pictures of `side × side` pixels.
    ///
    /// # Errors
    /// As [`Florence2::random`].
    pub fn random(
        &self,
        config: Florence2Config,
        side: usize,
        seed: u64,
    ) -> Result<Florence2, LoadError> {
        Florence2::random(config, side, seed, &self.device, self.dtype)
    }

    /// The device that `auto` came to.
    #[must_use]
    pub fn device(&self) -> DeviceChoice {
        self.choice
    }

    /// What computes, and in which number format, in words; with what int8 came to, where it did.
    #[must_use]
    pub fn describe(&self, quantised: Option<&Quantised>) -> String {
        let dtype = self.dtype.name();
        if !self.device.is_cpu() {
            return format!("{dtype} on {}", self.choice);
        }
        let set = InstructionSet::detect();
        let note = match self.dtype {
            Dtype::F16 => ", composed of tensor operations: slower than f32 on a CPU",
            Dtype::Bf16 if !set.has_bf16() => {
                ", multiplied as f32: half the memory, no faster seeing"
            }
            Dtype::Int8 if !set.has_int8() => {
                ", without byte dot products: slower than it could be"
            }
            _ => "",
        };
        let kept = quantised.map_or_else(String::new, |quantised| {
            let kept = quantised.kept_in_bf16.len();
            format!(", {kept} of {} layers kept in bf16", quantised.layers)
        });
        format!("{dtype} on the CPU, {}{note}{kept}", set.name())
    }

    /// The vector instructions of the CPU's kernels; none where something else computes.
    #[must_use]
    pub fn instructions(&self) -> Option<InstructionSet> {
        (self.device.is_cpu() && self.dtype != Dtype::F16).then(InstructionSet::detect)
    }

    /// The number format by its name, such as `f32`.
    #[must_use]
    pub fn dtype(&self) -> &'static str {
        self.dtype.name()
    }
}

/// Sizes the process's one compute pool; the default is the CPU quota. Returns the number of
/// threads in force, which is the earlier one if the pool was already running.
pub fn use_threads(threads: Option<usize>) -> usize {
    let quota = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(quota))
        .thread_name(|index| format!("compute-{index}"))
        .build_global();
    if let Err(error) = pool {
        tracing::debug!(%error, "the compute pool was already running");
    }
    rayon::current_num_threads()
}

/// Chooses the vector instructions of the CPU's kernels; without a choice, the best that the machine
/// has. The first choice of a process holds.
pub fn use_instructions(set: Option<InstructionSet>) {
    if set.is_some_and(|set| !set.choose()) {
        tracing::debug!(?set, "the kernels were already in use");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spelled_as_documented() {
        for text in ["auto", "cpu", "metal", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:+1", "cpu:0", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text:?}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_built_in_is_refused_by_name() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
        assert!(
            error.contains("no cuda support") && error.contains("--device cpu"),
            "{error}"
        );
        assert!(DeviceChoice::Auto.open().is_ok());
    }
}
