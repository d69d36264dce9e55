//! Where the configuration comes from: the command line, and the file that it may name.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::config::RenderConfig;
use crate::config::file::{self, File};
use crate::config::flags::{Command, Flags, Given, RenderFlags};
use crate::config::layers::{self, Loaded, Note};
use crate::config::problem::{Name, Problems};

/// Where the configuration comes from.
pub(super) struct Origin {
    given: Given,
    path: Option<PathBuf>,
    host_name: String,
}

impl Origin {
    /// The origin that a command line names.
    pub(super) fn new(flags: &Flags, host_name: String) -> Self {
        let path = match &flags.command {
            Some(Command::Render(render)) => &render.config,
            _ => &flags.daemon.source.config,
        };
        let path = (!path.is_empty()).then(|| PathBuf::from(path));
        Origin { given: flags.given.clone(), path, host_name }
    }

    /// The file, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What a person calls it.
    pub(super) fn what(&self) -> &'static str {
        match self.path {
            Some(_) => "configuration",
            None => "command line",
        }
    }

    /// The configuration as it is now; `problems` were found before.
    pub(super) fn load(&self, problems: Problems) -> Result<Loaded, Problems> {
        let (file, problems) = self.file(problems)?;
        layers::load(&self.given, file.as_ref(), &self.host_name, problems)
    }

    /// What to render; `problems` were found before.
    pub(super) fn load_to_render(
        &self,
        flags: &RenderFlags,
        problems: Problems,
    ) -> Result<RenderConfig, Problems> {
        let (file, problems) = self.file(problems)?;
        let (config, notes) = layers::render(flags, file.as_ref(), &self.host_name, problems)?;
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        for note in notes {
            match note {
                Note::Oddity(reason) => {
                    super::complain(&format!("warning: {path}: {reason}\n"));
                }
                Note::Overridden(flags) => {
                    let flags = flags.join(", ");
                    super::complain(&format!("warning: {path} counts in place of {flags}\n"));
                }
                Note::Replaced(fields) => {
                    let fields = fields.join(", ");
                    super::complain(&format!(
                        "warning: flags count in place of {fields} in {path}\n"
                    ));
                }
                Note::NoMode | Note::WithoutEffect(_) => {}
            }
        }
        Ok(config)
    }

    /// The file as it is now, if there is one.
    fn file(&self, problems: Problems) -> Result<(Option<File>, Problems), Problems> {
        let Some(path) = &self.path else { return Ok((None, problems)) };
        read(path, problems).map(|(file, problems)| (Some(file), problems))
    }

    /// Tells what the owner of the configuration should know.
    pub(super) fn log(&self, notes: &[Note]) {
        let file = self.path.as_deref().unwrap_or(Path::new("")).display();
        for note in notes {
            match note {
                Note::Oddity(reason) => warn!(%file, reason, "configuration file is odd"),
                Note::NoMode => info!(%file, "configuration file names no mode, ipvs is meant"),
                Note::Overridden(flags) => {
                    let ignored = flags.join(", ");
                    warn!(%file, ignored, "configuration file counts in place of flags");
                }
                Note::Replaced(fields) => {
                    let ignored = fields.join(", ");
                    info!(%file, ignored, "flags count in place of fields of the configuration file");
                }
                Note::WithoutEffect(names) => {
                    let ignored = names.join(", ");
                    info!(ignored, "settings of kube-proxy have no effect here");
                }
            }
        }
    }
}

/// Reads the configuration file.
fn read(path: &Path, mut problems: Problems) -> Result<(File, Problems), Problems> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok(file::read(&name, &text, problems)),
        Err(error) => {
            let complaint = match error.kind() {
                ErrorKind::IsADirectory => "must be a file, and is a folder".to_string(),
                _ => format!("cannot be read: {error}"),
            };
            problems.complain(Name::Flag("config".into()), &name, complaint);
            Err(problems)
        }
    }
}
