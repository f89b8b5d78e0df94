//! One table of flags per program: it yields parsing, `--help`, `--check` and the TOML keys.
//!
//! A setting comes from the first of: flag, environment, file (`--config`), default.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// The flag that names the TOML file; every program has it.
const CONFIG: &str = "config";
/// The flag that prints the effective settings and exits; every program has it.
const CHECK: &str = "check";

/// One setting of a program.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Name on the command line without dashes; also the TOML key.
    pub name: Cow<'static, str>,
    /// What kind of value it takes.
    pub kind: Kind,
    /// Default as it would be typed; `None` if there is none or if it depends on the host.
    pub default: Option<&'static str>,
    /// One line for `--help` and the manual.
    pub help: &'static str,
}

/// What kind of value a flag takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One value; the text names it in `--help`.
    One(&'static str),
    /// Any number of values: repeat the flag, or separate by commas in the environment.
    Many(&'static str),
    /// One value that `--check` must not print.
    Secret(&'static str),
    /// Any number of values that `--check` must not print.
    Secrets(&'static str),
    /// On or off.
    Switch,
}

impl Flag {
    /// A flag of the table.
    #[must_use]
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        help: &'static str,
    ) -> Self {
        Self { name: Cow::Borrowed(name), kind, default, help }
    }

    /// The same flag under `prefix`, for a program that embeds another.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self { name: Cow::Owned(format!("{prefix}{}", self.name)), ..self.clone() }
    }

    fn variable(&self, program: &str) -> String {
        format!("{program}_{}", self.name).to_uppercase().replace(['-', '.'], "_")
    }
}

/// The command line of `program` with all of `flags`, `--config` and `--check`.
#[must_use]
pub fn command(program: &'static str, about: &'static str, flags: &[Flag]) -> Command {
    let config = Arg::new(CONFIG).long(CONFIG).value_name("FILE").help("Read settings from TOML");
    let check = Arg::new(CHECK)
        .long(CHECK)
        .action(ArgAction::SetTrue)
        .help("Print the effective settings, secrets hidden, and exit");
    Command::new(program)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .arg(config)
        .arg(check)
        .args(flags.iter().map(|flag| {
            let arg = Arg::new(flag.name.to_string()).long(flag.name.to_string());
            let help = match flag.default {
                Some(default) => format!("{} [default: {default}]", flag.help),
                None => flag.help.to_owned(),
            };
            match flag.kind {
                Kind::One(value) | Kind::Secret(value) => arg.value_name(value),
                Kind::Many(value) | Kind::Secrets(value) => {
                    arg.value_name(value).action(ArgAction::Append)
                }
                Kind::Switch => arg.action(ArgAction::SetTrue),
            }
            .help(help)
        }))
}

/// Reads this process's command line; `None` if it asked for help or the version, which is printed.
///
/// # Errors
/// What is wrong with it, in one line: the operator's mistake.
pub fn matches(command: Command) -> Result<Option<ArgMatches>, SettingError> {
    match command.try_get_matches() {
        Ok(matches) => Ok(Some(matches)),
        Err(error) if error.use_stderr() => {
            // Clap's other lines explain how to use the program.
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let text = format!("{first}; --help lists all settings");
            Err(SettingError::new("command line", text))
        }
        Err(help) => {
            // Whoever reads it may have closed the pipe.
            let _ = help.print();
            Ok(None)
        }
    }
}

/// The values of all settings, still as text.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<String, Vec<String>>,
    check: bool,
}

impl Settings {
    /// Collects every setting: flag, then environment, then file, then default.
    ///
    /// `environment` looks a variable up; `std::env::var(name).ok()` in production.
    ///
    /// # Errors
    /// An unreadable file, or a key of it that no flag has: the operator's mistake.
    pub fn load(
        matches: &ArgMatches,
        flags: &[Flag],
        environment: impl Fn(&str) -> Option<String>,
        program: &str,
    ) -> Result<Self, SettingError> {
        let mut values = BTreeMap::new();
        for flag in flags {
            if let Some(default) = flag.default {
                values.insert(flag.name.to_string(), vec![default.to_owned()]);
            }
        }
        let file = matches.get_one::<String>(CONFIG).cloned();
        let file = file.or_else(|| environment(&Flag::variable(&CONFIG_FLAG, program)));
        if let Some(path) = file {
            values.extend(read_file(&PathBuf::from(path), flags)?);
        }
        for flag in flags {
            if let Some(text) = environment(&flag.variable(program)) {
                let split = matches!(flag.kind, Kind::Many(_) | Kind::Secrets(_));
                let list = if split {
                    text.split(',').map(|part| part.trim().to_owned()).collect()
                } else {
                    vec![text]
                };
                values.insert(flag.name.to_string(), list);
            }
            let id = flag.name.as_ref();
            if flag.kind == Kind::Switch {
                if matches.get_flag(id) {
                    values.insert(id.to_owned(), vec!["true".to_owned()]);
                }
            } else if let Some(given) = matches.get_many::<String>(id) {
                values.insert(id.to_owned(), given.cloned().collect());
            }
        }
        Ok(Self { values, check: matches.get_flag(CHECK) })
    }

    /// `--check` was given: print and exit.
    #[must_use]
    pub fn check(&self) -> bool {
        self.check
    }

    /// The settings whose names begin with `prefix`, without it.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        let strip = |(name, value): (&String, &Vec<String>)| {
            Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
        };
        Self { values: self.values.iter().filter_map(strip).collect(), check: self.check }
    }

    /// Sets a value that was not given, for defaults that depend on other settings.
    pub fn set_default(&mut self, name: &str, value: &str) {
        self.values.entry(name.to_owned()).or_insert_with(|| vec![value.to_owned()]);
    }

    /// Whether any source gave a value.
    #[must_use]
    pub fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of a single-valued setting.
    ///
    /// # Errors
    /// Text that is not a `T`.
    pub fn one<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, SettingError> {
        self.text(name).map(|text| parse(name, text)).transpose()
    }

    /// The value of a setting that has a default in the table.
    ///
    /// # Errors
    /// Text that is not a `T`.
    pub fn required<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<T, SettingError> {
        self.one(name)?.ok_or_else(|| SettingError::new(name, "a value is needed"))
    }

    /// All values of a repeatable setting, in the order given.
    ///
    /// # Errors
    /// Text that is not a `T`.
    pub fn many<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Vec<T>, SettingError> {
        self.values.get(name).into_iter().flatten().map(|text| parse(name, text)).collect()
    }

    /// Whether a switch is on.
    ///
    /// # Errors
    /// Text that is neither `true` nor `false`.
    pub fn switch(&self, name: &str) -> Result<bool, SettingError> {
        Ok(self.one(name)?.unwrap_or(false))
    }

    /// The names of settings that another reading gives other values, in alphabetical order.
    #[must_use]
    pub fn changed_keys(&self, other: &Self) -> Vec<String> {
        let names = self.values.keys().chain(other.values.keys());
        let names = names.filter(|name| self.values.get(*name) != other.values.get(*name));
        let names: std::collections::BTreeSet<_> = names.cloned().collect();
        names.into_iter().collect()
    }

    /// The effective settings as TOML, secrets hidden.
    #[must_use]
    pub fn describe(&self, flags: &[Flag]) -> String {
        let mut out = String::new();
        for flag in flags {
            let Some(values) = self.values.get(flag.name.as_ref()) else { continue };
            let hide = matches!(flag.kind, Kind::Secret(_) | Kind::Secrets(_));
            let quote = |text: &String| {
                toml::Value::String(if hide { "(hidden)".to_owned() } else { text.clone() })
                    .to_string()
            };
            let value = match flag.kind {
                Kind::Many(_) | Kind::Secrets(_) => {
                    let list: Vec<_> = values.iter().map(quote).collect();
                    format!("[{}]", list.join(", "))
                }
                Kind::Switch => values.concat(),
                Kind::One(_) | Kind::Secret(_) => values.iter().map(quote).collect(),
            };
            out.push_str(&format!("{} = {value}\n", flag.name));
        }
        out
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }
}

/// A setting that cannot be used. `Display` is the one line that the operator sees.
#[derive(Debug)]
pub struct SettingError {
    key: String,
    text: String,
}

impl SettingError {
    /// `key` names the setting, `text` says what is wrong and what to do.
    pub fn new(key: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { key: key.into(), text: text.to_string() }
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

impl std::error::Error for SettingError {}

static CONFIG_FLAG: Flag = Flag::new(CONFIG, Kind::One("FILE"), None, "");

fn parse<T: FromStr<Err: fmt::Display>>(name: &str, text: &str) -> Result<T, SettingError> {
    text.parse().map_err(|error| SettingError::new(name, format!("{text:?}: {error}")))
}

/// Reads a TOML file; tables become prefixes (`[relay] listen` is `relay.listen`).
fn read_file(
    path: &PathBuf,
    flags: &[Flag],
) -> Result<BTreeMap<String, Vec<String>>, SettingError> {
    let at = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| SettingError::new(&at, error))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        SettingError::new(&at, error.to_string().replace('\n', " "))
    })?;
    let mut values = BTreeMap::new();
    flatten("", &table, &mut values).map_err(|key| {
        SettingError::new(&at, format!("{key}: only text, whole numbers, true, false and lists"))
    })?;
    for (key, list) in &values {
        let Some(flag) = flags.iter().find(|flag| flag.name == *key) else {
            return Err(SettingError::new(&at, format!("{key}: there is no such setting")));
        };
        if list.len() != 1 && !matches!(flag.kind, Kind::Many(_) | Kind::Secrets(_)) {
            return Err(SettingError::new(&at, format!("{key}: takes one value")));
        }
    }
    Ok(values)
}

/// Fails with the name of a key whose value has no text form.
fn flatten(
    prefix: &str,
    table: &toml::Table,
    values: &mut BTreeMap<String, Vec<String>>,
) -> Result<(), String> {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        let list = match value {
            toml::Value::Table(inner) => {
                flatten(&format!("{name}."), inner, values)?;
                continue;
            }
            toml::Value::Array(items) => items.iter().map(scalar).collect(),
            single => scalar(single).map(|text| vec![text]),
        };
        values.insert(name.clone(), list.ok_or(name)?);
    }
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(on.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::new("listen", Kind::Many("IP:PORT"), Some("0.0.0.0:3478"), "where"),
        Flag::new("workers", Kind::One("N"), None, "threads"),
        Flag::new("user", Kind::Secrets("NAME:PASSWORD"), None, "static user"),
        Flag::new("strict", Kind::Switch, None, "switch"),
    ];

    fn load(args: &[&str], variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let args = std::iter::once(&"relay").chain(args);
        let matches = command("relay", "", FLAGS).try_get_matches_from(args).expect("flags");
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::load(&matches, FLAGS, find, "relay")
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let toml = file("listen = ['file:1', 'file:2']\nworkers = 3\nstrict = true\n");
        let path = toml.path().to_str().expect("text");
        let listen = |settings: Settings| settings.many::<String>("listen").expect("text");
        let none: &[(&str, &str)] = &[];
        assert_eq!(listen(load(&[], none).expect("defaults")), ["0.0.0.0:3478"]);
        let by_file = load(&["--config", path], none).expect("file");
        assert_eq!(by_file.one::<u32>("workers").expect("number"), Some(3));
        assert!(by_file.switch("strict").expect("switch"));
        assert_eq!(listen(by_file), ["file:1", "file:2"]);
        let variables = [("RELAY_LISTEN", "env:1, env:2"), ("RELAY_CONFIG", path)];
        assert_eq!(listen(load(&[], &variables).expect("environment")), ["env:1", "env:2"]);
        let by_flag = load(&["--listen", "flag:1", "--listen", "flag:2"], &variables);
        assert_eq!(listen(by_flag.expect("flags")), ["flag:1", "flag:2"]);
    }

    #[test]
    fn mistakes_name_their_key() {
        for (text, wanted) in [
            ("lisen = 'x'", "lisen: there is no such setting"),
            ("workers = [1, 2]", "workers: takes one value"),
            ("workers = 1.5", "workers: only text"),
            ("workers =", "TOML parse error"),
        ] {
            let toml = file(text);
            let error = load(&["--config", toml.path().to_str().expect("text")], &[]);
            let error = error.expect_err(text).to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = load(&["--config", "/nowhere.toml"], &[]).expect_err("no such file");
        assert!(error.to_string().starts_with("/nowhere.toml: "), "{error}");
        let error = load(&["--workers", "two"], &[]).expect("text").one::<u32>("workers");
        assert!(error.expect_err("not a number").to_string().starts_with("workers: \"two\""));
    }

    #[test]
    fn description_hides_secrets() {
        let settings = load(&["--user", "ana:geheim"], &[]).expect("flags");
        let text = settings.describe(FLAGS);
        assert!(text.contains("user = [\"(hidden)\"]"), "{text}");
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn embedded_program_has_its_settings_below_a_prefix() {
        let flags: Vec<_> = FLAGS.iter().map(|flag| flag.prefixed("relay.")).collect();
        let toml = file("[relay]\nworkers = 7\n");
        let path = toml.path().to_str().expect("text").to_owned();
        let matches = command("signaling", "", &flags)
            .try_get_matches_from(["signaling", "--config", &path, "--relay.listen", "x:1"])
            .expect("flags");
        let all = Settings::load(&matches, &flags, |_| None, "signaling").expect("settings");
        let relay = all.below("relay.");
        assert_eq!(relay.one::<u32>("workers").expect("number"), Some(7));
        assert_eq!(relay.many::<String>("listen").expect("text"), ["x:1"]);
    }
}
