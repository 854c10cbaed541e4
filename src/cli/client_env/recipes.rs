//! The lines that point a stock client at a server. Pure text; each recipe is driven by the test
//! that runs the stock clients.
//!
//! Python reads its hosts from the environment and insists on https; for plain HTTP, and for uploads,
//! its module variables are set. JavaScript has no address option but a hook that sees every URL. The
//! third way changes no program: fal's names lead to this machine, and its authority is trusted.

use std::fmt::Write as _;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::Client;
use super::probe::Found;
use crate::server::FAL_HOSTS;

/// The port of https, which fal's own names imply.
const HTTPS_PORT: u16 = 443;

/// Said by a client when the server asks for none.
const ANY_KEY: &str = "any-key";

/// Why a recipe cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRecipe {
    /// The environment says hosts, not schemes.
    #[error(
        "Python's fal-client takes no plain http address from the environment; start the server with --tls local, or print lines of code with --client python and without --shell"
    )]
    PlainEnvironment,
    /// fal's names are https.
    #[error(
        "fal's own names are reached over https alone; start the server with --tls local --port 443"
    )]
    PlainHosts,
}

/// All recipes for one server.
pub(super) struct Recipes<'a>(pub(super) &'a Found);

impl Recipes<'_> {
    /// Recipes with their explanation, all or one. Each is valid as it stands in its own language.
    pub(super) fn text(&self, client: Option<Client>) -> Result<String, NoRecipe> {
        match client {
            Some(Client::Python) => Ok(self.python()),
            Some(Client::Js) => Ok(self.js()),
            Some(Client::Hosts) => self.hosts(),
            None => {
                let mut text = format!("# {}, {}\n", self.base(), self.key_sentence());
                let heading = |text: &mut String, words| {
                    let _ = writeln!(text, "\n# --- {words}\n");
                };
                heading(&mut text, "Python");
                text.push_str(&self.python());
                heading(&mut text, "JavaScript");
                text.push_str(&self.js());
                if let Ok(hosts) = self.hosts() {
                    heading(&mut text, "any client, without a change");
                    text.push_str(&hosts);
                }
                Ok(text)
            }
        }
    }

    /// Lines for a shell's `eval`.
    pub(super) fn shell(&self, client: Option<Client>) -> Result<String, NoRecipe> {
        let mut lines = vec![self.key_line()];
        if client != Some(Client::Js) && !self.is_https() {
            return Err(match client {
                Some(Client::Hosts) => NoRecipe::PlainHosts,
                _ => NoRecipe::PlainEnvironment,
            });
        }
        if matches!(client, None | Some(Client::Python)) {
            lines.extend(self.python_hosts());
        }
        let js = client != Some(Client::Python);
        let python = client != Some(Client::Js);
        lines.extend(self.authority_lines(python, js));
        Ok(lines.iter().map(|line| format!("{line}\n")).collect())
    }

    fn python(&self) -> String {
        let base = self.base();
        if !self.is_https() {
            let key = if self.0.needs_key {
                "import os\nif not os.environ.get(\"FAL_KEY\"): raise SystemExit(\"FAL_KEY must hold one of the keys of the server\")"
                    .to_owned()
            } else {
                format!("import os; os.environ.setdefault(\"FAL_KEY\", \"{ANY_KEY}\")")
            };
            return format!(
                "# fal-client takes only https addresses from the environment. These lines, before its\n\
                 # first call, make it plain http:\n\
                 {key}\n\
                 import fal_client.client as c\n\
                 c.RUN_URL_FORMAT, c.QUEUE_URL_FORMAT = \"{base}/\", \"{base}/queue/\"\n\
                 c.REST_URL, c.CDN_URL = \"{base}/rest\", \"{base}\"\n",
            );
        }
        let mut text = String::from("# In the shell that starts the program:\n");
        let lines = [self.key_line()]
            .into_iter()
            .chain(self.python_hosts())
            .chain(self.authority_lines(true, false));
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        let _ = write!(
            text,
            "# fal-client before 0.11 knows no FAL_QUEUE_RUN_HOST and asks queue.{}, a name\n\
             # that must lead here. Uploads have no variable in any version, but two lines of code:\n\
             #   import fal_client.client as c\n\
             #   c.REST_URL, c.CDN_URL = \"{base}/rest\", \"{base}\"\n",
            self.authority_part(),
        );
        text
    }

    fn python_hosts(&self) -> [String; 2] {
        let host = self.authority_part();
        [
            format!("export FAL_RUN_HOST={host}"),
            format!("export FAL_QUEUE_RUN_HOST={host}/queue"),
        ]
    }

    fn js(&self) -> String {
        let mut text = String::new();
        for line in self.authority_lines(false, true) {
            let _ = writeln!(text, "// In the shell that starts Node: {line}");
        }
        let credentials = if self.0.needs_key {
            text.push_str("// FAL_KEY holds one of the server's keys.\n");
            "process.env.FAL_KEY".to_owned()
        } else {
            format!("\"{ANY_KEY}\"")
        };
        let _ = write!(
            text,
            "const base = \"{}\", faces = {{ \"fal.run\": \"run\", \"queue.fal.run\": \"queue\", \"rest.fal.ai\": \"rest\", \"rest.alpha.fal.ai\": \"rest\" }};\n\
             fal.config({{ credentials: {credentials}, requestMiddleware: async (r) => {{ const {{ host, pathname, search }} = new URL(r.url); return faces[host] ? {{ ...r, url: `${{base}}/${{faces[host]}}${{pathname}}${{search}}` }} : r; }} }});\n",
            self.base(),
        );
        text
    }

    fn hosts(&self) -> Result<String, NoRecipe> {
        if !self.is_https() {
            return Err(NoRecipe::PlainHosts);
        }
        let mut text = String::new();
        if self.port() != HTTPS_PORT {
            let _ = writeln!(
                text,
                "# These names imply port {HTTPS_PORT}: start the server with --port {HTTPS_PORT}."
            );
        }
        let _ = writeln!(
            text,
            "# In /etc/hosts of the client's machine, or in DNS (falrun.com is where fal-client turns when fal.run\n\
             # does not answer):\n{} {}",
            self.address(),
            FAL_HOSTS.join(" ")
        );
        text.push_str("# In the shell that starts the program:\n");
        for line in [self.key_line()]
            .into_iter()
            .chain(self.authority_lines(true, true))
        {
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    fn key_sentence(&self) -> &'static str {
        if self.0.needs_key {
            "which asks for one of its keys"
        } else {
            "which takes any key"
        }
    }

    /// A key of fal's that stands in the environment already is not sent to a server that needs none.
    fn key_line(&self) -> String {
        if self.0.needs_key {
            "export FAL_KEY=\"${FAL_KEY:?must hold one of the keys of the server}\"".into()
        } else {
            format!("export FAL_KEY={ANY_KEY}")
        }
    }

    /// Variables by which each runtime is told of a further authority. Python's names all that are
    /// trusted, Node's what is trusted beside them.
    fn authority_lines(&self, python: bool, js: bool) -> Vec<String> {
        let Some(authority) = &self.0.authority else {
            return Vec::new();
        };
        // A variable must hold in whatever folder the program runs.
        let whole = |file: &PathBuf| {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            quoted(&file.to_string_lossy())
        };
        let mut lines = Vec::new();
        if python {
            let file = whole(self.0.bundle.as_ref().unwrap_or(authority));
            lines.push(format!("export SSL_CERT_FILE={file}"));
        }
        if js {
            lines.push(format!("export NODE_EXTRA_CA_CERTS={}", whole(authority)));
        }
        lines
    }

    fn is_https(&self) -> bool {
        self.0.base.scheme() == "https"
    }

    fn base(&self) -> &str {
        self.0.base.as_str().trim_end_matches('/')
    }

    /// The address without its scheme.
    fn authority_part(&self) -> &str {
        let base = self.base();
        base.split_once("://").map_or(base, |(_, rest)| rest)
    }

    fn port(&self) -> u16 {
        self.0.base.port_or_known_default().unwrap_or(HTTPS_PORT)
    }

    /// The numeric address for a hosts file.
    fn address(&self) -> String {
        let host = self.0.base.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|it| it.is_loopback()) {
            return "127.0.0.1".into();
        }
        let found = (bare, self.port()).to_socket_addrs();
        let first = found.ok().and_then(|mut found| found.next());
        first.map_or_else(|| bare.to_owned(), |found| found.ip().to_string())
    }
}

/// A word for a shell, whatever it contains.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@:".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(base: &str, authority: Option<&str>, needs_key: bool) -> Found {
        Found {
            base: base.parse().unwrap(),
            authority: authority.map(Into::into),
            bundle: authority.map(|file| format!("{file}.all").into()),
            needs_key,
        }
    }

    #[test]
    fn a_shell_gets_exactly_the_variables_that_the_client_reads() {
        let found = server("https://localhost:8443/", Some("/a b/ca.pem"), false);
        let key = "export FAL_KEY=any-key\n";
        let hosts =
            "export FAL_RUN_HOST=localhost:8443\nexport FAL_QUEUE_RUN_HOST=localhost:8443/queue\n";
        let (python, node) = (
            "export SSL_CERT_FILE='/a b/ca.pem.all'\n",
            "export NODE_EXTRA_CA_CERTS='/a b/ca.pem'\n",
        );
        for (client, expected) in [
            (None, [key, hosts, python, node].concat()),
            (Some(Client::Python), [key, hosts, python].concat()),
            (Some(Client::Js), [key, node].concat()),
            (Some(Client::Hosts), [key, python, node].concat()),
        ] {
            assert_eq!(Recipes(&found).shell(client), Ok(expected), "{client:?}");
        }
    }

    #[test]
    fn a_key_is_asked_for_where_the_server_asks_for_one() {
        let found = server("https://box.lan", None, true);
        let lines = Recipes(&found).shell(Some(Client::Hosts)).unwrap();
        assert_eq!(
            lines,
            "export FAL_KEY=\"${FAL_KEY:?must hold one of the keys of the server}\"\n"
        );
        assert!(Recipes(&found).js().contains("process.env.FAL_KEY"));
    }

    #[test]
    fn no_recipe_for_a_server_with_keys_holds_the_key_for_those_without() {
        for base in ["http://127.0.0.1:8000", "https://box.lan"] {
            let (keyed, open) = (server(base, None, true), server(base, None, false));
            let keyed = Recipes(&keyed).text(None).unwrap();
            assert!(!keyed.contains(ANY_KEY), "{keyed}");
            assert!(keyed.matches("FAL_KEY").count() >= 2, "{keyed}");
            assert!(Recipes(&open).text(None).unwrap().contains(ANY_KEY));
        }
    }

    #[test]
    fn a_bundle_that_cannot_be_kept_leaves_the_authority_alone() {
        let mut found = server("https://box.lan", Some("/ca.pem"), false);
        found.bundle = None;
        let lines = Recipes(&found).shell(Some(Client::Python)).unwrap();
        assert!(lines.ends_with("export SSL_CERT_FILE=/ca.pem\n"), "{lines}");
    }

    #[test]
    fn without_tls_there_is_code_and_no_environment() {
        let found = server("http://127.0.0.1:8000", None, false);
        let recipes = Recipes(&found);
        let python = recipes.text(Some(Client::Python)).unwrap();
        assert!(
            python.contains("c.QUEUE_URL_FORMAT = \"http://127.0.0.1:8000/\", \"http://127.0.0.1:8000/queue/\"\n"),
            "{python}"
        );
        for client in [None, Some(Client::Python)] {
            assert_eq!(recipes.shell(client), Err(NoRecipe::PlainEnvironment));
        }
        let hosts = Some(Client::Hosts);
        assert_eq!(recipes.shell(hosts), Err(NoRecipe::PlainHosts));
        assert_eq!(recipes.text(hosts), Err(NoRecipe::PlainHosts));
        assert!(!recipes.text(None).unwrap().contains("/etc/hosts"));
    }

    #[test]
    fn hosts_lines_name_every_host_of_fal_and_warn_of_another_port() {
        let found = server("https://127.0.0.1:8443", Some("/ca.pem"), false);
        let text = Recipes(&found).text(Some(Client::Hosts)).unwrap();
        let line = text.lines().find(|line| line.starts_with("127.0.0.1 "));
        let named: Vec<_> = line.unwrap().split(' ').skip(1).collect();
        assert_eq!(named, FAL_HOSTS);
        assert!(text.contains("--port 443"));
        let found = server("https://[::1]", Some("/ca.pem"), false);
        let text = Recipes(&found).text(Some(Client::Hosts)).unwrap();
        assert!(!text.contains("--port 443"));
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_read_them_otherwise() {
        assert_eq!(quoted("/home/a/ca.pem"), "/home/a/ca.pem");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("$HOME"), "'$HOME'");
    }
}
