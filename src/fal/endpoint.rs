//! The fourteen endpoints of `fal-ai/florence-2-large`: name, input model, output model.
//!
//! This is fal's published catalogue, kept apart from the model's own task table; `pipeline` joins
//! the two by name and checks that they agree. Beside it stands how clients read an endpoint id.

/// The account in whose name the endpoints are published.
pub const OWNER: &str = "fal-ai";

/// The application's name.
pub const ALIAS: &str = "florence-2-large";

/// Which fields an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputModel {
    /// `ImageInput`: `image_url`.
    Image,
    /// `ImageWithTextInput`: `image_url`, `text_input`.
    ImageWithText,
    /// `ImageWithUserCoordinatesInput`: `image_url`, `region`.
    ImageWithRegion,
}

/// Which shape an endpoint answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputModel {
    /// `TextOutput`.
    Text,
    /// `BoundingBoxOutputWithLabels`.
    Boxes,
    /// `OCRBoundingBoxOutputWithLabels`.
    OcrBoxes,
    /// `PolygonOutputWithLabels`.
    Polygons,
}

/// One row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Last part of the endpoint id, such as `dense-region-caption`.
    pub name: &'static str,
    /// What it takes.
    pub input: InputModel,
    /// What it answers.
    pub output: OutputModel,
}

const fn row(name: &'static str, input: InputModel, output: OutputModel) -> Endpoint {
    Endpoint {
        name,
        input,
        output,
    }
}

/// All endpoints.
pub static ENDPOINTS: [Endpoint; 14] = {
    use InputModel::{Image, ImageWithRegion, ImageWithText};
    use OutputModel::{Boxes, OcrBoxes, Polygons, Text};
    [
        row("caption", Image, Text),
        row("detailed-caption", Image, Text),
        row("more-detailed-caption", Image, Text),
        row("object-detection", Image, Boxes),
        row("dense-region-caption", Image, Boxes),
        row("region-proposal", Image, Boxes),
        row("ocr", Image, Text),
        row("ocr-with-region", Image, OcrBoxes),
        row("caption-to-phrase-grounding", ImageWithText, Boxes),
        row("referring-expression-segmentation", ImageWithText, Polygons),
        row("region-to-segmentation", ImageWithRegion, Polygons),
        row("open-vocabulary-detection", ImageWithText, Boxes),
        row("region-to-category", ImageWithRegion, Text),
        row("region-to-description", ImageWithRegion, Text),
    ]
};

impl Endpoint {
    /// The endpoint of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|endpoint| endpoint.name == name)
    }

    /// The name that is most like this one, which is none, if it is like enough to have been meant.
    #[must_use]
    pub fn nearest(name: &str) -> Option<&'static str> {
        // Comparing takes the product of the lengths, and callers write what they like.
        if name.len() > MAX_LIKE_BYTES {
            return None;
        }
        let name = name.trim_matches(['<', '>']).to_ascii_lowercase();
        let name = name.replace(['_', ' '], "-");
        if let Some((_, meant)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
            return Some(meant);
        }
        // Some of a name's words, in no other name.
        let words = format!("-{name}-");
        let mut with_words = ENDPOINTS
            .iter()
            .filter(|it| format!("-{}-", it.name).contains(&words));
        if let (Some(only), None) = (with_words.next(), with_words.next()) {
            return Some(only.name);
        }
        let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&name, known);
        let all = ENDPOINTS.iter().map(|it| (likeness(it.name), it.name));
        let (likeness, nearest) = all.max_by(|one, other| one.0.total_cmp(&other.0))?;
        (likeness >= LIKE_ENOUGH).then_some(nearest)
    }
}

/// Longest name, in bytes, that is compared with the known ones.
const MAX_LIKE_BYTES: usize = 64;
/// How like a known name another must be to stand for a slip of the keyboard; 1 is equal.
const LIKE_ENOUGH: f64 = 0.6;

/// What people call an endpoint whose name is not like that; the first is the model's own token.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("od", "object-detection"),
    ("detect", "object-detection"),
    ("detection", "object-detection"),
    ("objects", "object-detection"),
];

/// First parts of an endpoint id that are a namespace: owner and alias follow.
const NAMESPACES: [&str; 2] = ["workflows", "comfy"];

/// An endpoint id as fal's clients take it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointId<'a> {
    /// The account.
    pub owner: &'a str,
    /// The application.
    pub alias: &'a str,
    /// What follows, without a slash in front; often empty.
    pub path: &'a str,
}

impl<'a> EndpointId<'a> {
    /// Takes an id apart: `owner/alias/path`, the same behind a namespace, or a bare `123-alias`.
    #[must_use]
    pub fn parse(id: &'a str) -> Option<Self> {
        let (first, rest) = id.split_once('/').unwrap_or((id, ""));
        if rest.is_empty() {
            return Self::bare(first);
        }
        let (owner, rest) = if NAMESPACES.contains(&first) {
            rest.split_once('/')?
        } else {
            (first, rest)
        };
        let (alias, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parsed = Self { owner, alias, path };
        (!owner.is_empty() && !alias.is_empty()).then_some(parsed)
    }

    fn bare(id: &'a str) -> Option<Self> {
        let (owner, alias) = id.split_once('-')?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let is_bare = !owner.is_empty()
            && owner.bytes().all(|byte| byte.is_ascii_digit())
            && !alias.is_empty()
            && alias.bytes().all(is_name);
        is_bare.then_some(Self {
            owner,
            alias,
            path: "",
        })
    }

    /// Whether it names this server's application.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.owner == OWNER && self.alias == ALIAS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_for_a_slip_and_for_nothing_else() {
        for (name, nearest) in [
            ("captoin", "caption"),
            ("captions", "caption"),
            ("object_detection", "object-detection"),
            ("Dense Region Caption", "dense-region-caption"),
            ("region-segmentation", "region-to-segmentation"),
            ("<OCR_WITH_REGIONS>", "ocr-with-region"),
            ("region-to-segmentaton", "region-to-segmentation"),
            ("OCR", "ocr"),
            ("<OD>", "object-detection"),
            ("detect", "object-detection"),
            ("Caption", "caption"),
            ("grounding", "caption-to-phrase-grounding"),
            ("open_vocabulary", "open-vocabulary-detection"),
        ] {
            assert_eq!(Endpoint::nearest(name), Some(nearest), "{name}");
        }
        let long = "caption".repeat(100);
        for name in [
            "",
            "x",
            "ca",
            "nothing",
            "to",
            "-",
            "caption/streams",
            "%22%0a",
            &long,
        ] {
            assert_eq!(Endpoint::nearest(name), None, "{name}");
        }
    }

    #[test]
    fn ids_are_taken_apart_as_the_clients_do_it() {
        for (id, parts) in [
            (
                "fal-ai/florence-2-large",
                ("fal-ai", "florence-2-large", ""),
            ),
            (
                "fal-ai/florence-2-large/",
                ("fal-ai", "florence-2-large", ""),
            ),
            (
                "fal-ai/florence-2-large/caption/stream",
                ("fal-ai", "florence-2-large", "caption/stream"),
            ),
            ("workflows/me/mine/x/y", ("me", "mine", "x/y")),
            ("comfy/me/mine", ("me", "mine", "")),
            ("123-name", ("123", "name", "")),
            ("1-a-B-2", ("1", "a-B-2", "")),
            ("a/b//c", ("a", "b", "/c")),
        ] {
            let (owner, alias, path) = parts;
            let expected = EndpointId { owner, alias, path };
            assert_eq!(EndpointId::parse(id), Some(expected), "{id}");
        }
        for id in [
            "",
            "/",
            "//",
            "a",
            "a/",
            "/b",
            "a//b",
            "a-b",
            "-b",
            "1-",
            "1-b_c",
            "1-b c",
            "workflows",
            "workflows/a",
            "workflows/a/",
            "workflows//b",
            "comfy/",
        ] {
            assert_eq!(EndpointId::parse(id), None, "{id}");
        }
        assert!(
            EndpointId::parse("comfy/fal-ai/florence-2-large")
                .unwrap()
                .is_ours()
        );
        assert!(
            !EndpointId::parse("fal-ai/florence-2-base")
                .unwrap()
                .is_ours()
        );
    }
}
