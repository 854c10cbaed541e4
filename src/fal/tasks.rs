//! Validates a call with several tasks about one picture. fal has no such call: it is our addition,
//! at the address of the application itself, and `image_url`, `scores` and `sync_mode` mean what they
//! mean on each task's own endpoint.
//!
//! `{"image_url": …, "tasks": ["caption", {"task": "open-vocabulary-detection", "text_input": "a
//! cup"}], "scores": false}`. An entry is the name of a task, or an object with the name and the
//! fields of that task's endpoint; a task may occur more than once. Faults follow the same rules as
//! those of [`super::input`], with the entry's position in their path; where fal documents a type of
//! its own for what the validator calls otherwise (`one_of`, `sequence_too_…`), fal's is used.

use serde_json::{Value, json};

use super::endpoint::{ENDPOINTS, Endpoint};
use super::error::{Fault, FaultType, Step};
use super::image_url::ImageUrl;
use super::input::{
    ShownInput, below, check_string, check_task_fields, missing, not_a_string, not_an_object,
    read_scores, read_sync_mode, take_text,
};
use super::json::Json;

/// One task of a call, its fields checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskCall {
    /// The task's own endpoint.
    pub endpoint: &'static Endpoint,
    /// The free text, for tasks that take one.
    pub text_input: Option<String>,
    /// `x1, y1, x2, y2` on the model's grid, for tasks that take a region; corners may be reversed.
    pub region: Option<[u16; 4]>,
}

/// A call with several tasks whose fields have the right types and ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct TasksInput {
    /// Where the picture is: an http(s) URL or a `data:` URI.
    pub image_url: ImageUrl,
    /// What is asked about it, in this order; at least one.
    pub tasks: Vec<TaskCall>,
    /// Each finding is to carry how likely the model held it.
    pub scores: bool,
    /// Drawn pictures are to come as `data:` URIs.
    pub sync_mode: bool,
}

impl TasksInput {
    /// What an error shows of it.
    #[must_use]
    pub fn shown(&self) -> ShownInput {
        let texts = self.tasks.iter().map(|task| task.text_input.as_deref());
        ShownInput::of(&self.image_url, texts)
    }
}

/// Reads a call with at most `max_tasks` tasks out of a request body.
///
/// # Errors
/// All faults, in field order.
pub fn read(body: impl Into<Json>, max_tasks: usize) -> Result<TasksInput, Vec<Fault>> {
    let Json {
        value: mut body,
        image_url,
    } = body.into();
    if !body.is_object() {
        return Err(vec![not_an_object(&[], &body)]);
    }
    let mut faults = Vec::new();
    check_string(&body, &[], "image_url", &mut faults);
    let checked = check_tasks(&body, max_tasks, &mut faults);
    let scores = read_scores(&body, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let sync_mode = read_sync_mode(&body);
    let mut entries = match body.get_mut("tasks").map(Value::take) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    let tasks = checked
        .into_iter()
        .zip(&mut entries)
        .map(|((endpoint, region), entry)| TaskCall {
            endpoint,
            text_input: take_text(endpoint.input, entry),
            region,
        });
    Ok(TasksInput {
        tasks: tasks.collect(),
        image_url: image_url.unwrap_or_default(),
        scores,
        sync_mode,
    })
}

/// A task and its region, if it takes one.
type Checked = (&'static Endpoint, Option<[u16; 4]>);

fn check_tasks(body: &Value, max_tasks: usize, faults: &mut Vec<Fault>) -> Vec<Checked> {
    let at = [Step::Key("tasks")];
    let Some(value) = body.get("tasks") else {
        faults.push(missing(&at, body));
        return Vec::new();
    };
    let Value::Array(entries) = value else {
        let msg = "Input should be a valid list";
        faults.push(Fault::new(FaultType::ListType, &at, msg, value));
        return Vec::new();
    };
    if let Some(fault) = length_fault(&at, value, entries.len(), max_tasks) {
        faults.push(fault);
        return Vec::new();
    }
    let entries = entries.iter().enumerate();
    let checked = entries.filter_map(|(index, entry)| {
        check_entry(entry, &below(&at, Step::Position(index)), faults)
    });
    checked.collect()
}

/// What is wrong with the number of tasks. The entries of such a list are not looked at, so that a
/// long one costs nothing.
fn length_fault(at: &[Step], value: &Value, found: usize, max_tasks: usize) -> Option<Fault> {
    if found == 0 {
        let msg = "List should have at least 1 item after validation, not 0";
        let fault = Fault::new(FaultType::SequenceTooShort, at, msg, value);
        return Some(fault.with_ctx(json!({ "min_length": 1 })));
    }
    (found > max_tasks).then(|| {
        let items = if max_tasks == 1 { "item" } else { "items" };
        let msg =
            format!("List should have at most {max_tasks} {items} after validation, not {found}");
        Fault::new(FaultType::SequenceTooLong, at, msg, value)
            .with_ctx(json!({ "max_length": max_tasks }))
    })
}

fn check_entry(entry: &Value, at: &[Step], faults: &mut Vec<Fault>) -> Option<Checked> {
    let (name, loc) = match entry {
        Value::String(_) => (entry, at.to_vec()),
        Value::Object(fields) => {
            let loc = below(at, Step::Key("task"));
            let Some(name) = fields.get("task") else {
                faults.push(missing(&loc, entry));
                return None;
            };
            (name, loc)
        }
        _ => {
            let msg = "Input should be the name of a task, or a valid dictionary or object to extract fields from";
            faults.push(Fault::new(FaultType::ModelAttributesType, at, msg, entry));
            return None;
        }
    };
    let Value::String(text) = name else {
        faults.push(not_a_string(&loc, name));
        return None;
    };
    let Some(endpoint) = Endpoint::named(text) else {
        faults.push(not_a_task(&loc, name));
        return None;
    };
    let region = check_task_fields(endpoint.input, entry, at, faults);
    Some((endpoint, region))
}

fn not_a_task(loc: &[Step], name: &Value) -> Fault {
    let names = ENDPOINTS.each_ref().map(|endpoint| endpoint.name);
    let quoted = names.map(|name| format!("'{name}'"));
    let mut msg = match quoted.split_last() {
        Some((last, others)) => format!("Input should be {} or {last}", others.join(", ")),
        None => String::new(),
    };
    if let Some(nearest) = name.as_str().and_then(Endpoint::nearest) {
        msg += &format!("; did you mean '{nearest}'?");
    }
    Fault::new(FaultType::OneOf, loc, msg, name).with_ctx(json!({ "expected": names }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_TASKS: usize = 4;

    fn faults(body: Value) -> Vec<Value> {
        let faults = read(body, MAX_TASKS).unwrap_err();
        faults
            .iter()
            .map(|fault| serde_json::to_value(fault).unwrap())
            .collect()
    }

    /// Type and path of each fault.
    fn short(body: Value) -> Vec<(String, Value)> {
        faults(body)
            .into_iter()
            .map(|fault| {
                let kind = fault["type"].as_str().unwrap().to_owned();
                (kind, fault["loc"].clone())
            })
            .collect()
    }

    #[test]
    fn names_and_objects_are_read_in_their_order() {
        let body = json!({
            "tasks": [
                "caption",
                {"task": "region-to-category", "region": {"x1": "1", "y1": 2, "x2": 3.0, "y2": 4}, "text_input": 5},
                {"text_input": "a cup", "task": "open-vocabulary-detection", "region": null},
                "caption",
            ],
            "scores": "on",
            "sync_mode": true,
            "image_url": "u",
            "text_input": 7,
        });
        let TasksInput {
            image_url,
            tasks,
            scores,
            sync_mode,
        } = read(body, MAX_TASKS).unwrap();
        assert_eq!(
            (image_url, scores, sync_mode),
            (ImageUrl::from("u"), true, true)
        );
        let found: Vec<_> = tasks
            .iter()
            .map(|task| (task.endpoint.name, task.text_input.as_deref(), task.region))
            .collect();
        assert_eq!(
            found,
            [
                ("caption", None, None),
                ("region-to-category", None, Some([1, 2, 3, 4])),
                ("open-vocabulary-detection", Some("a cup"), None),
                ("caption", None, None),
            ]
        );
    }

    #[test]
    fn all_faults_are_listed_in_field_order_with_their_path() {
        let region = json!({"x1": 0, "y1": 1000, "y2": 0});
        let body = json!({
            "scores": [],
            "tasks": [
                "open-vocabulary-detection",
                {"task": "region-to-category", "region": region},
                {"text_input": "x"},
                7,
            ],
        });
        let at = |rest: Value| {
            let mut path = vec![json!("body"), json!("tasks")];
            path.extend(rest.as_array().unwrap().iter().cloned());
            json!(path)
        };
        let kinds = |pairs: &[(&str, Value)]| -> Vec<(String, Value)> {
            let owned = pairs
                .iter()
                .map(|(kind, loc)| ((*kind).to_owned(), loc.clone()));
            owned.collect()
        };
        assert_eq!(
            short(body),
            kinds(&[
                ("missing", json!(["body", "image_url"])),
                ("missing", at(json!([0, "text_input"]))),
                ("less_than_equal", at(json!([1, "region", "y1"]))),
                ("missing", at(json!([1, "region", "x2"]))),
                ("missing", at(json!([2, "task"]))),
                ("model_attributes_type", at(json!([3]))),
                ("bool_type", json!(["body", "scores"])),
            ])
        );
        let body = json!({"image_url": "u", "tasks": [{"task": 1}, {"task": "od"}, "<OD>"]});
        assert_eq!(
            short(body),
            kinds(&[
                ("string_type", at(json!([0, "task"]))),
                ("one_of", at(json!([1, "task"]))),
                ("one_of", at(json!([2]))),
            ])
        );
    }

    #[test]
    fn a_fault_shows_the_value_it_is_about() {
        let body = json!({"image_url": "u", "tasks": ["Caption", "open-vocabulary-detection"]});
        let [unknown, lacking] = faults(body).try_into().unwrap();
        assert_eq!(unknown["input"], "Caption");
        let msg = unknown["msg"].as_str().unwrap();
        assert!(msg.starts_with("Input should be 'caption', 'detailed-caption', "));
        let last = ", 'region-to-category' or 'region-to-description'; did you mean 'caption'?";
        assert!(msg.ends_with(last));
        assert_eq!(unknown["ctx"]["expected"].as_array().unwrap().len(), 14);
        assert_eq!(lacking["input"], "open-vocabulary-detection");
    }

    #[test]
    fn the_list_has_bounds() {
        let ask = |tasks: Value| read(json!({"image_url": "u", "tasks": tasks}), MAX_TASKS);
        assert_eq!(ask(json!(vec!["ocr"; 4])).unwrap().tasks.len(), 4);
        let fault = |tasks: Value| {
            let [fault] = faults(json!({"image_url": "u", "tasks": tasks}))
                .try_into()
                .unwrap();
            assert_eq!(fault["loc"], json!(["body", "tasks"]));
            (fault["type"].clone(), fault["ctx"].clone())
        };
        let too_long = (json!("sequence_too_long"), json!({"max_length": 4}));
        assert_eq!(fault(json!(vec!["ocr"; 5])), too_long);
        assert_eq!(fault(json!(vec![0; 5000])), too_long);
        let too_short = (json!("sequence_too_short"), json!({"min_length": 1}));
        assert_eq!(fault(json!([])), too_short);
        for other in [json!(null), json!("caption"), json!({"task": "caption"})] {
            assert_eq!(fault(other), (json!("list_type"), Value::Null));
        }
    }

    #[test]
    fn without_an_object_there_is_one_fault_and_without_tasks_another() {
        for body in [json!([]), json!(null), json!("x")] {
            assert_eq!(
                short(body),
                [("model_attributes_type".to_owned(), json!(["body"]))]
            );
        }
        assert_eq!(
            short(json!({"image_url": "u"})),
            [("missing".to_owned(), json!(["body", "tasks"]))]
        );
    }
}
