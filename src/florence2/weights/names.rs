//! Tensor names: the model asks by the native transformers name; a checkpoint in Microsoft's
//! original layout answers to another one.
//!
//! The rule is pure renaming, plus the transpose of `image_projection`, which the projector does.

/// Which of the two published layouts a checkpoint is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As Microsoft published it.
    Original,
    /// As the transformers library's own class saves it.
    Native,
}

/// Why names fit no layout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnknownNames {
    /// They are a layout's, but for this in front of each.
    Prefixed(String),
    /// They are another model's.
    Foreign,
}

/// The buffer of zeros that only the original layout has.
pub(crate) const FINAL_LOGITS_BIAS: &str = "language_model.final_logits_bias";

impl Layout {
    /// Tells the layout by the names in the file.
    pub(crate) fn detect<'a>(
        mut names: impl Iterator<Item = &'a str>,
    ) -> Result<Self, UnknownNames> {
        // The patch convolution is what the two layouts call differently, whatever stands before it.
        let found = names.find_map(|name| {
            let at = name.find("vision_tower.convs.")?;
            let (prefix, tail) = name.split_at(at);
            let layout = match tail.split('.').nth(3)? {
                "proj" => Self::Original,
                "conv" => Self::Native,
                _ => return None,
            };
            Some((layout, prefix))
        });
        let (layout, prefix) = found.ok_or(UnknownNames::Foreign)?;
        match prefix.strip_suffix(layout.prefix()) {
            Some("") => Ok(layout),
            Some(more) => Err(UnknownNames::Prefixed(more.to_owned())),
            None => Err(UnknownNames::Foreign),
        }
    }

    /// What stands before `vision_tower.` in every name of it.
    fn prefix(self) -> &'static str {
        match self {
            Self::Original => "",
            Self::Native => "model.",
        }
    }

    /// The checkpoint's own spelling of a native name.
    #[must_use]
    pub fn name(self, native: &str) -> String {
        match self {
            Self::Native => native.to_owned(),
            Self::Original => original(native),
        }
    }
}

fn original(native: &str) -> String {
    if let Some(rest) = native.strip_prefix("lm_head.") {
        return format!("language_model.lm_head.{rest}");
    }
    let Some(inner) = native.strip_prefix("model.") else {
        return native.to_owned();
    };
    if let Some(rest) = inner.strip_prefix("language_model.") {
        return format!("language_model.model.{rest}");
    }
    if let Some(rest) = inner.strip_prefix("multi_modal_projector.") {
        return match rest {
            "image_projection.weight" => "image_projection".to_owned(),
            _ => rest.replacen("image_position_embed.", "image_pos_embed.", 1),
        };
    }
    if inner.starts_with("vision_tower.convs.") {
        return inner.replacen(".conv.", ".proj.", 1);
    }
    let attention = if inner.contains(".spatial_block.") {
        ".window_attn."
    } else {
        ".channel_attn."
    };
    inner
        .replacen(".conv1.", ".conv1.fn.dw.", 1)
        .replacen(".conv2.", ".conv2.fn.dw.", 1)
        .replacen(attention, &format!("{attention}fn."), 1)
        .replacen(".norm1.", &format!("{attention}norm."), 1)
        .replacen(".ffn.", ".ffn.fn.net.", 1)
        .replacen(".norm2.", ".ffn.norm.", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_prefix_is_told_from_a_layouts_own() {
        for (name, expected) in [
            ("vision_tower.convs.0.proj.weight", Ok(Layout::Original)),
            ("model.vision_tower.convs.3.conv.bias", Ok(Layout::Native)),
            ("module.vision_tower.convs.0.proj.weight", Err("module.")),
            ("model.vision_tower.convs.0.proj.weight", Err("model.")),
            (
                "model.model.vision_tower.convs.0.conv.weight",
                Err("model."),
            ),
            (
                "_orig_mod.model.vision_tower.convs.0.conv.weight",
                Err("_orig_mod."),
            ),
            (
                "base_model.model.vision_tower.convs.0.proj.weight",
                Err("base_model.model."),
            ),
        ] {
            let found = Layout::detect(["other", name].into_iter());
            let expected = expected.map_err(|prefix| UnknownNames::Prefixed(prefix.to_owned()));
            assert_eq!(found, expected, "{name}");
        }
        for name in [
            "vision_tower.convs.0.conv.weight",
            "vision_tower.blocks.x",
            "a",
        ] {
            let found = Layout::detect([name].into_iter());
            assert_eq!(found, Err(UnknownNames::Foreign), "{name}");
        }
    }

    #[test]
    fn original_names_follow_the_published_table() {
        let cases = [
            (
                "model.vision_tower.convs.2.conv.weight",
                "vision_tower.convs.2.proj.weight",
            ),
            (
                "model.vision_tower.convs.2.norm.bias",
                "vision_tower.convs.2.norm.bias",
            ),
            (
                "model.vision_tower.blocks.2.8.spatial_block.conv1.weight",
                "vision_tower.blocks.2.8.spatial_block.conv1.fn.dw.weight",
            ),
            (
                "model.vision_tower.blocks.0.0.channel_block.channel_attn.qkv.bias",
                "vision_tower.blocks.0.0.channel_block.channel_attn.fn.qkv.bias",
            ),
            (
                "model.vision_tower.blocks.0.0.spatial_block.norm1.weight",
                "vision_tower.blocks.0.0.spatial_block.window_attn.norm.weight",
            ),
            (
                "model.vision_tower.blocks.0.0.spatial_block.norm2.weight",
                "vision_tower.blocks.0.0.spatial_block.ffn.norm.weight",
            ),
            (
                "model.vision_tower.blocks.0.0.spatial_block.ffn.fc1.weight",
                "vision_tower.blocks.0.0.spatial_block.ffn.fn.net.fc1.weight",
            ),
            (
                "model.multi_modal_projector.image_projection.weight",
                "image_projection",
            ),
            (
                "model.multi_modal_projector.image_position_embed.row_embeddings.weight",
                "image_pos_embed.row_embeddings.weight",
            ),
            (
                "model.language_model.shared.weight",
                "language_model.model.shared.weight",
            ),
            ("lm_head.weight", "language_model.lm_head.weight"),
        ];
        for (native, expected) in cases {
            assert_eq!(Layout::Original.name(native), expected);
        }
    }
}
