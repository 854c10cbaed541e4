//! The document as a page for people: one file without scripts, fonts or anything else to load.
//!
//! Everything is read from the document, so the page cannot say something else. Texts in it are
//! escaped; words between backticks become code.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schemas::EXTENSION;

const STYLE: &str = include_str!("page.css");

/// Renders the page. Writing to a string cannot fail, so its results are dropped.
pub(super) fn render(document: &Value) -> String {
    let origin = text_of(&document["servers"][0]["url"]);
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n\
         <title>florence2-server</title>\n<style>{STYLE}</style>\n<header><h1>florence2-server <small>{}</small></h1>\n<p>{}</p></header>\n",
        escaped(text_of(&document["info"]["version"])),
        marked(text_of(&document["info"]["description"])),
    );
    let chapters = chapters(document);
    navigation(&mut page, &chapters, document);
    page.push_str("<main>\n");
    first_call(&mut page, origin);
    for chapter in &chapters {
        self::chapter(&mut page, chapter, document);
    }
    shapes(&mut page, document);
    page.push_str("</main>\n</html>\n");
    page
}

/// One chapter: its name, what it is about, and its operations.
struct Chapter<'a> {
    name: &'a str,
    about: &'a str,
    operations: Vec<(&'a str, &'a str, &'a Value)>,
}

fn chapters(document: &Value) -> Vec<Chapter<'_>> {
    let tags = document["tags"].as_array().map_or(&[][..], Vec::as_slice);
    let chapter = |tag| {
        let tag: &Value = tag;
        let name = text_of(&tag["name"]);
        let operations = members(&document["paths"]).flat_map(|(path, methods)| {
            members(methods).map(move |(method, operation)| (method, path, operation))
        });
        Chapter {
            name,
            about: text_of(&tag["description"]),
            operations: operations
                .filter(|(_, _, operation)| operation["tags"][0] == name)
                .collect(),
        }
    };
    tags.iter().map(chapter).collect()
}

fn navigation(page: &mut String, chapters: &[Chapter<'_>], document: &Value) {
    page.push_str("<nav>\n<a href=#first>First call</a>\n");
    for Chapter { name, .. } in chapters {
        let name = escaped(name);
        let _ = writeln!(page, "<a href=#{name}>{name}</a>");
    }
    page.push_str("<a href=#shapes>Shapes</a>\n<ul>\n");
    for (name, _) in members(&document["components"]["schemas"]) {
        let name = escaped(name);
        let _ = writeln!(page, "<li><a href=#{name}>{name}</a>");
    }
    page.push_str("</ul>\n<a href=/openapi.json>openapi.json</a>\n</nav>\n");
}

fn first_call(page: &mut String, origin: &str) {
    let (scheme, host) = origin.split_once("://").unwrap_or(("http", origin));
    let curl = format!(
        "curl {origin}/fal-ai/florence-2-large/caption \\\n  -H 'Authorization: Key any-key' -H 'Content-Type: application/json' \\\n  -d \"{{\\\"image_url\\\": \\\"data:image/jpeg;base64,$(base64 -w0 photo.jpg)\\\"}}\""
    );
    let python = if scheme == "https" {
        format!(
            "# In the shell that starts the program:\n#   export FAL_KEY=any-key FAL_RUN_HOST={host}\n#   export FAL_QUEUE_RUN_HOST={host}/queue\nimport fal_client\n"
        )
    } else {
        format!(
            "import fal_client, fal_client.client as c\nc.RUN_URL_FORMAT = \"{origin}/\"\nc.QUEUE_URL_FORMAT = \"{origin}/queue/\"\n"
        )
    };
    let python = format!(
        "{python}fal_client.run(\"fal-ai/florence-2-large/caption\",\n    arguments={{\"image_url\": fal_client.encode_file(\"photo.jpg\")}})"
    );
    let js = format!(
        "import {{ fal }} from \"@fal-ai/client\";\nfal.config({{\n  credentials: \"any-key\",\n  proxyUrl: {{ url: \"{origin}/api/fal/proxy\", when: \"always\" }},\n}});\nawait fal.subscribe(\"fal-ai/florence-2-large/caption\", {{ input: {{ image_url: photo }} }});"
    );
    page.push_str("<section id=first><h2>First call</h2>\n<p>A program written for fal changes its address and nothing else. <code>florence2-server client-env</code> prints the exact lines for this server, certificate included.</p>\n");
    for (title, code) in [("Shell", curl), ("Python", python), ("JavaScript", js)] {
        let code = escaped(&code);
        let _ = writeln!(page, "<h3>{title}</h3>\n<pre>{code}</pre>");
    }
    page.push_str("</section>\n");
}

fn chapter(page: &mut String, chapter: &Chapter<'_>, document: &Value) {
    let name = escaped(chapter.name);
    let about = marked(chapter.about);
    let _ = writeln!(page, "<section id={name}><h2>{name}</h2>\n<p>{about}</p>");
    for (method, path, operation) in &chapter.operations {
        let summary = marked(text_of(&operation["summary"]));
        let _ = write!(
            page,
            "<details><summary><b class={method}>{}</b> <code>{}</code> <span>{summary}</span></summary>\n<div>\n",
            method.to_uppercase(),
            escaped(path).replace('/', "/<wbr>"),
        );
        let description = text_of(&operation["description"]);
        if !description.is_empty() {
            let _ = writeln!(page, "<p>{}</p>", marked(description));
        }
        parameters(page, operation);
        body(page, operation, document);
        answers(page, operation);
        page.push_str("</div></details>\n");
    }
    page.push_str("</section>\n");
}

fn parameters(page: &mut String, operation: &Value) {
    let Some(parameters) = operation["parameters"].as_array() else {
        return;
    };
    page.push_str("<h4>Parameters</h4>\n<table>\n");
    for parameter in parameters {
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{}",
            escaped(text_of(&parameter["name"])),
            type_of(&parameter["schema"]),
            marked(text_of(&parameter["description"])),
        );
    }
    page.push_str("</table>\n");
}

fn body(page: &mut String, operation: &Value, document: &Value) {
    let Some((media_type, content)) = members(&operation["requestBody"]["content"]).next() else {
        return;
    };
    let schema = &content["schema"];
    let _ = writeln!(
        page,
        "<h4>Takes {}</h4>",
        if schema.get("type").is_some() {
            escaped(media_type)
        } else {
            type_of(schema)
        }
    );
    if let Some(name) = referred(schema) {
        fields(page, &document["components"]["schemas"][name]);
    }
    if let Some(example) = content.get("example") {
        code(page, example);
    }
}

fn answers(page: &mut String, operation: &Value) {
    page.push_str("<h4>Answers</h4>\n<table class=answers>\n");
    let mut examples = Vec::new();
    for (status, answer) in members(&operation["responses"]) {
        let content = members(&answer["content"]).next();
        let shape = content.map_or_else(String::new, |(media_type, content)| {
            let schema = &content["schema"];
            if referred(schema).is_some() || schema.get("oneOf").is_some() {
                type_of(schema)
            } else {
                escaped(media_type)
            }
        });
        if let Some(example) = content.and_then(|(_, content)| content.get("example")) {
            examples.push((status, example));
        }
        let _ = writeln!(
            page,
            "<tr><td><b class=s{}>{status}</b><td>{shape}<td>{}",
            status.get(..1).unwrap_or_default(),
            marked(text_of(&answer["description"])),
        );
    }
    page.push_str("</table>\n");
    for (status, example) in examples {
        let _ = writeln!(page, "<h4>{status}</h4>");
        code(page, example);
    }
}

fn shapes(page: &mut String, document: &Value) {
    page.push_str("<section id=shapes><h2>Shapes</h2>\n<p>Keys come in this order. What is marked <i>optional</i> may be absent or null.</p>\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let name = escaped(name);
        let about = marked(text_of(&schema["description"]));
        let _ = writeln!(page, "<h3 id={name}>{name}</h3>\n<p>{about}</p>");
        if schema.get("properties").is_some() {
            fields(page, schema);
        } else {
            let _ = writeln!(page, "<p>{}</p>", type_of(schema));
        }
    }
    page.push_str("</section>\n");
}

fn fields(page: &mut String, schema: &Value) {
    let required = schema["required"].as_array();
    page.push_str("<table>\n");
    for (name, property) in members(&schema["properties"]) {
        let is_required = required.is_some_and(|names| names.iter().any(|it| it == name));
        let mut marks = String::new();
        if !is_required {
            marks.push_str(" <i>optional</i>");
        }
        if property.get(EXTENSION).is_some() {
            marks.push_str(" <i>not on fal</i>");
        }
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}{marks}<td>{}",
            escaped(name),
            type_of(property),
            marked(text_of(&property["description"])),
        );
    }
    page.push_str("</table>\n");
}

fn code(page: &mut String, example: &Value) {
    let text = serde_json::to_string_pretty(example).unwrap_or_default();
    let _ = writeln!(page, "<pre>{}</pre>", escaped(&text));
}

/// A type in words: a link to its shape, a list of something, or a plain JSON type with its range.
fn type_of(schema: &Value) -> String {
    if let Some(name) = referred(schema) {
        let name = escaped(name);
        return format!("<a href=#{name}>{name}</a>");
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[key].as_array() {
            let mut words: Vec<_> = choices.iter().map(type_of).collect();
            words.retain(|word| word != "null");
            return words.join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| escaped(text_of(word))).collect();
        return format!("<code>{}</code>", words.join("</code> or <code>"));
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().map_or("", text_of),
        kind => text_of(kind),
    };
    match (kind, schema.get("items"), schema.get("maximum")) {
        ("array", Some(items), _) => format!("list of {}", type_of(items)),
        (kind, _, Some(maximum)) => {
            format!("{} {} to {maximum}", escaped(kind), schema["minimum"])
        }
        ("", _, _) => "anything".into(),
        (kind, _, _) => escaped(kind),
    }
}

fn referred(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let members = value.as_object().unwrap_or(&NONE);
    members.iter().map(|(key, value)| (key.as_str(), value))
}

pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}

/// Escapes a text and sets every second part between backticks as code.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = escaped(part);
        if index % 2 == 1 {
            let _ = write!(marked, "<code>{part}</code>");
        } else {
            marked.push_str(&part);
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_escaped_and_backticks_become_code() {
        assert_eq!(
            marked("a `<b>` & \"c\""),
            "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;"
        );
    }

    #[test]
    fn types_are_said_in_words() {
        for (schema, words) in [
            (
                json!({"$ref": "#/components/schemas/Image"}),
                "<a href=#Image>Image</a>",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                "list of string",
            ),
            (json!({"type": ["integer", "null"]}), "integer"),
            (
                json!({"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Image"}]}),
                "<a href=#Image>Image</a>",
            ),
            (
                json!({"type": "integer", "minimum": 0, "maximum": 999}),
                "integer 0 to 999",
            ),
            (
                json!({"enum": ["A", "B"]}),
                "<code>A</code> or <code>B</code>",
            ),
            (json!({}), "anything"),
        ] {
            assert_eq!(type_of(&schema), words, "{schema}");
        }
    }
}
