//! The input models as they are published, for the OpenAPI documents. [`super::input`] and
//! [`super::tasks`] read requests by hand, because every fault must be listed; a test holds the
//! readers to these types. Additions of our own come after the published fields and are marked.

use serde::Serialize;
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
    /// Whether each finding is to carry `score`. Where the answer is a text, this means nothing.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub scores: Option<bool>,
    /// Whether the drawn picture is to come as a `data:` URI in the answer.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub sync_mode: Option<bool>,
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
    /// Whether each finding is to carry `score`. Where the answer is a text, this means nothing.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub scores: Option<bool>,
    /// Whether the drawn picture is to come as a `data:` URI in the answer.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub sync_mode: Option<bool>,
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
    /// Whether each finding is to carry `score`. Where the answer is a text, this means nothing.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub scores: Option<bool>,
    /// Whether the drawn picture is to come as a `data:` URI in the answer.
    #[schema(extensions(("x-florence2-extension" = json!(true))))]
    pub sync_mode: Option<bool>,
}

/// A picture and what is asked about it.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
pub struct TasksInput {
    /// The picture, as for a single task.
    pub image_url: String,
    /// What is asked, in the order of the answers.
    pub tasks: Vec<TaskEntry>,
    /// Whether each finding is to carry `score`.
    pub scores: Option<bool>,
    /// Whether drawn pictures are to come as `data:` URIs in the answer.
    pub sync_mode: Option<bool>,
}

/// A task: its name, or its name with the fields of its own endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TaskEntry {
    /// The name of an endpoint that takes a picture alone.
    #[schema(examples("caption"))]
    Name(String),
    /// The name of any endpoint, and what it takes beside the picture.
    Detailed {
        /// The name of an endpoint.
        #[schema(examples("open-vocabulary-detection"))]
        task: String,
        /// As on that endpoint.
        text_input: Option<String>,
        /// As on that endpoint.
        region: Option<Region>,
    },
}

/// A rectangle on the model's grid: 0 is the left or upper edge of the picture, 999 the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
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
    use crate::fal::endpoint::{ENDPOINTS, Endpoint, InputModel};
    use crate::fal::error::Fault;
    use crate::fal::{input, tasks};

    /// The fields that must be there.
    fn required<T: PartialSchema>() -> Vec<Value> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        schema["required"].as_array().unwrap().clone()
    }

    /// The fields that the reader misses, by the last part of their path.
    fn missing(faults: &[Fault]) -> Vec<Value> {
        let faults = serde_json::to_value(faults).unwrap();
        let last = |fault: &Value| fault["loc"].as_array().unwrap().last().unwrap().clone();
        let faults = faults.as_array().unwrap().iter();
        faults
            .filter(|fault| fault["type"] == "missing")
            .map(last)
            .collect()
    }

    #[test]
    fn the_readers_demand_exactly_the_published_fields_in_their_order() {
        for endpoint in &ENDPOINTS {
            let published = match endpoint.input {
                InputModel::Image => required::<ImageInput>(),
                InputModel::ImageWithText => required::<ImageWithTextInput>(),
                InputModel::ImageWithRegion => required::<ImageWithUserCoordinatesInput>(),
            };
            let faults = input::read(endpoint, json!({})).unwrap_err();
            assert_eq!(missing(&faults), published, "{}", endpoint.name);
        }
        let body = json!({"image_url": "u", "region": {}});
        let endpoint = Endpoint::named("region-to-category").unwrap();
        let faults = input::read(endpoint, body).unwrap_err();
        assert_eq!(missing(&faults), required::<Region>());
        let faults = tasks::read(json!({}), 8).unwrap_err();
        assert_eq!(missing(&faults), required::<TasksInput>());
    }

    #[test]
    fn entries_of_both_published_forms_are_read() {
        let region = Region {
            x1: 1,
            y1: 2,
            x2: 3,
            y2: 4,
        };
        let entries = [
            TaskEntry::Name("caption".into()),
            TaskEntry::Detailed {
                task: "region-to-category".into(),
                text_input: None,
                region: Some(region),
            },
        ];
        let body = json!({"image_url": "u", "tasks": entries});
        let read = tasks::read(body, 8).unwrap();
        assert_eq!(read.tasks[0].endpoint.name, "caption");
        assert_eq!(read.tasks[1].region, Some([1, 2, 3, 4]));
    }
}
