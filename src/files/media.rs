//! What files are served as: a closed list, because uploaded bytes are foreign and stand on our own
//! address.

/// What a file is served as. A browser shows these pictures and runs nothing of them; everything
/// else, HTML and SVG above all, is bytes to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// `image/png`
    Png,
    /// `image/jpeg`
    Jpeg,
    /// `image/webp`
    Webp,
    /// `image/gif`
    Gif,
    /// `image/bmp`
    Bmp,
    /// `application/octet-stream`
    Other,
}

impl MediaType {
    pub(super) const ALL: [Self; 6] = [
        Self::Png,
        Self::Jpeg,
        Self::Webp,
        Self::Gif,
        Self::Bmp,
        Self::Other,
    ];

    /// From what the caller declared or, if that says nothing, from the file name's ending.
    #[must_use]
    pub fn of(content_type: Option<&str>, file_name: &str) -> Self {
        let declared = content_type.unwrap_or_default();
        let essence = declared.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "image/png" => Self::Png,
            "image/jpeg" | "image/jpg" => Self::Jpeg,
            "image/webp" => Self::Webp,
            "image/gif" => Self::Gif,
            "image/bmp" | "image/x-ms-bmp" => Self::Bmp,
            "" | "application/octet-stream" | "binary/octet-stream" => Self::of_ending(file_name),
            _ => Self::Other,
        }
    }

    fn of_ending(file_name: &str) -> Self {
        let ending = file_name.rsplit_once('.').map_or("", |(_, ending)| ending);
        match ending.to_ascii_lowercase().as_str() {
            "png" => Self::Png,
            "jpg" | "jpeg" => Self::Jpeg,
            "webp" => Self::Webp,
            "gif" => Self::Gif,
            "bmp" => Self::Bmp,
            _ => Self::Other,
        }
    }

    /// What stands in `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Other => "application/octet-stream",
        }
    }

    /// Its spelling in stored names.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pictures_are_served_as_what_they_were_declared() {
        let of = |declared: &str, name: &str| MediaType::of(Some(declared), name).content_type();
        assert_eq!(of("image/PNG; charset=x", "a.html"), "image/png");
        assert_eq!(of("image/jpg", ""), "image/jpeg");
        assert_eq!(of("application/octet-stream", "a.WEBP"), "image/webp");
        assert_eq!(MediaType::of(None, "a.gif"), MediaType::Gif);
        for (declared, name) in [
            ("text/html", "a.png"),
            ("image/svg+xml", "a.png"),
            ("image/svg", "a.svg"),
            ("application/xhtml+xml", "a"),
            ("text/plain", "a.png"),
            ("", "a.html"),
            ("", "a.svg"),
            ("image/png\n", "a"),
            ("image/png,text/html", "a"),
        ] {
            let media = MediaType::of(Some(declared), name);
            // White space around a type says nothing.
            if declared == "image/png\n" {
                assert_eq!(media, MediaType::Png);
            } else {
                assert_eq!(media, MediaType::Other, "{declared} {name}");
            }
        }
    }
}
