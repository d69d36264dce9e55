//! Problems of a configuration: collected, so that all of them are told at once.

use std::fmt;

/// What a problem is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// A flag, without its dashes.
    Flag(String),
    /// A field of a configuration file.
    Field {
        /// Names from the top down, with dots between.
        path: String,
        /// The file.
        file: String,
    },
    /// A file as a whole, or a place in it.
    File(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Flag(flag) => write!(f, "--{flag}"),
            Name::Field { path, .. } => f.write_str(path),
            Name::File(file) => f.write_str(file),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub name: Name,
    /// What was given, if anything was.
    pub given: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub complaint: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl Problem {
    /// The same for those who are told the file besides.
    pub fn without_file(&self) -> String {
        match &self.name {
            Name::File(_) => self.complaint.clone(),
            name => Problem { name: Name::File(name.to_string()), ..self.clone() }.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(given) = &self.given {
            write!(f, "={given}")?;
        }
        if let Name::Field { file, .. } = &self.name {
            write!(f, " in {file}")?;
        }
        write!(f, ": {}", self.complaint)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

/// All problems of a configuration, in the order in which they are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    errors: Vec<Problem>,
    /// What alone would be no reason to refuse it.
    warnings: Vec<Problem>,
}

impl Problems {
    /// Adds one.
    pub fn add(&mut self, problem: Problem) {
        self.errors.push(problem);
    }

    /// Adds a complaint about a value.
    pub fn complain(&mut self, name: Name, given: &str, complaint: impl Into<String>) {
        self.add(Problem {
            name,
            given: Some(given.to_string()),
            complaint: complaint.into(),
            nearest: None,
        });
    }

    /// What is wrong with these fields here and there.
    pub fn in_both(self, other: &Problems, fields: &[&str]) -> Vec<Problem> {
        let is_of_field = |problem: &Problem| match &problem.name {
            Name::Field { path, .. } => fields.contains(&path.as_str()),
            Name::Flag(_) | Name::File(_) => false,
        };
        let is_told = |problem: &Problem| is_of_field(problem) && other.errors.contains(problem);
        self.errors.into_iter().filter(is_told).collect()
    }

    /// The same, and what alone would be no reason to refuse the configuration.
    pub fn with_warnings(mut self, warnings: &[Problem]) -> Self {
        self.warnings.extend_from_slice(warnings);
        self
    }

    /// The same, those of fields as the fields stand in their file, before those of flags.
    pub fn in_order_of(mut self, fields: &[String]) -> Self {
        let place = |problem: &Problem| match &problem.name {
            Name::File(_) => (0, 0),
            Name::Field { path, .. } => {
                let place = fields.iter().position(|field| field == path);
                (1, place.unwrap_or(fields.len()))
            }
            Name::Flag(_) => (2, 0),
        };
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
        self
    }

    /// Whether there is no reason to refuse the configuration.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.errors.iter().map(Problem::to_string);
        let warnings = self.warnings.iter().map(|problem| format!("warning: {problem}"));
        f.write_str(&errors.chain(warnings).collect::<Vec<_>>().join("\n"))
    }
}
