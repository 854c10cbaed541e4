//! The input models as they are published, for the OpenAPI documents. [`super::input`] reads requests
//! by hand, because every fault must be listed; a test holds that reader to these types.

use utoipa::ToSchema;

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct ImageInput {
    /// The picture: an http or https URL that the server may fetch, a URL from an upload, or a
    /// `data:` URI that holds the file.
    #[schema(examples(
        "https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/transformers/tasks/car.jpg",
        "http://ecx.images-amazon.com/images/I/51UUzBDAMsL.jpg"
    ))]
    pub image_url: String,
}

/// A picture and a text that steers the task.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct ImageWithTextInput {
    /// The picture: an http or https URL that the server may fetch, a URL from an upload, or a
    /// `data:` URI that holds the file.
    #[schema(examples(
        "https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/transformers/tasks/car.jpg",
        "http://ecx.images-amazon.com/images/I/51UUzBDAMsL.jpg"
    ))]
    pub image_url: String,
    /// The caption to ground, the expression to segment, or the names to detect. May be empty.
    #[schema(examples(""))]
    pub text_input: String,
}

/// A picture and a rectangle in it.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct ImageWithUserCoordinatesInput {
    /// The picture: an http or https URL that the server may fetch, a URL from an upload, or a
    /// `data:` URI that holds the file.
    #[schema(examples(
        "https://huggingface.co/datasets/huggingface/documentation-images/resolve/main/transformers/tasks/car.jpg",
        "http://ecx.images-amazon.com/images/I/51UUzBDAMsL.jpg"
    ))]
    pub image_url: String,
    /// The rectangle to look at, not in pixels but on a grid of 1000 steps in each direction.
    pub region: Region,
}

/// A rectangle on the model's grid: 0 is the left or upper edge of the picture, 999 the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ToSchema)]
#[schema(examples(json!({"x1": 100, "y1": 100, "x2": 200, "y2": 200})))]
pub struct Region {
    /// Left edge.
    #[schema(minimum = 0, maximum = 999)]
    pub x1: u16,
    /// Upper edge.
    #[schema(minimum = 0, maximum = 999)]
    pub y1: u16,
    /// Right edge.
    #[schema(minimum = 0, maximum = 999)]
    pub x2: u16,
    /// Lower edge.
    #[schema(minimum = 0, maximum = 999)]
    pub y2: u16,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    use super::*;
    use crate::fal::endpoint::{ENDPOINTS, InputModel};
    use crate::fal::input;

    fn properties<T: PartialSchema>() -> Value {
        let schema = serde_json::to_value(T::schema()).unwrap();
        assert_eq!(
            schema["required"].as_array().unwrap().len(),
            schema["properties"].as_object().unwrap().len(),
        );
        schema["properties"].clone()
    }

    #[test]
    fn the_reader_demands_exactly_the_published_fields_in_their_order() {
        for endpoint in &ENDPOINTS {
            let published = match endpoint.input {
                InputModel::Image => properties::<ImageInput>(),
                InputModel::ImageWithText => properties::<ImageWithTextInput>(),
                InputModel::ImageWithRegion => properties::<ImageWithUserCoordinatesInput>(),
            };
            let faults = input::read(endpoint, json!({})).unwrap_err();
            let faults = serde_json::to_value(faults).unwrap();
            let missing: Vec<_> = faults
                .as_array()
                .unwrap()
                .iter()
                .map(|it| &it["loc"][1])
                .collect();
            let named: Vec<_> = published.as_object().unwrap().keys().collect();
            assert_eq!(missing, named, "{}", endpoint.name);
        }
        let endpoint = ENDPOINTS
            .iter()
            .find(|it| it.input == InputModel::ImageWithRegion);
        let body = json!({"image_url": "u", "region": {}});
        let faults = input::read(endpoint.unwrap(), body).unwrap_err();
        let faults = serde_json::to_value(faults).unwrap();
        let missing: Vec<_> = faults
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["loc"][2])
            .collect();
        let corners = properties::<Region>();
        assert_eq!(
            missing,
            corners.as_object().unwrap().keys().collect::<Vec<_>>()
        );
    }
}
