//! Where an answer goes: to stdout, or to a file that appears under its name only when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::interrupt::Interrupt;
use crate::outcome::Failure;
use crate::query::format::Format;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 18;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<Interruptible>,
    /// The file while it is written, and its name to be.
    file: Option<(PathBuf, PathBuf)>,
}

/// Refuses to go on once somebody said to stop; a write that blocks is ended by the second Ctrl-C.
#[derive(Debug)]
struct Interruptible {
    inner: Inner,
    interrupt: Interrupt,
}

#[derive(Debug)]
enum Inner {
    Stdout(io::Stdout),
    File(File),
    Memory(Vec<u8>),
}

impl Write for Interruptible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt.check()?;
        match &mut self.inner {
            Inner::Stdout(stdout) => stdout.write(bytes),
            Inner::File(file) => file.write(bytes),
            Inner::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Stdout(stdout) => stdout.flush(),
            Inner::File(file) => file.flush(),
            Inner::Memory(memory) => memory.flush(),
        }
    }
}

impl Output {
    /// Opens it. Bytes that are no text do not go to a terminal.
    pub(crate) fn open(
        path: Option<&Path>,
        format: Format,
        interrupt: &Interrupt,
    ) -> Result<Output, Failure> {
        let Some(path) = path else {
            if format.is_binary() && io::stdout().is_terminal() {
                let message = format!("{} is no text, and stdout is a terminal", format.name());
                return Err(Failure::usage(message).hint("write it to a file with -o FILE"));
            }
            let inner = Inner::Stdout(io::stdout());
            return Ok(Output { writer: buffered(inner, interrupt), file: None });
        };
        let Some(name) = path.file_name() else {
            return Err(Failure::usage(format!("output `{}` names no file", path.display())));
        };
        let mut unfinished = name.to_owned();
        unfinished.push(format!(".{}.part", std::process::id()));
        let unfinished = path.with_file_name(unfinished);
        let file = File::create(&unfinished)
            .map_err(|error| Failure::failed(format!("create {}: {error}", path.display())))?;
        let writer = buffered(Inner::File(file), interrupt);
        Ok(Output { writer, file: Some((unfinished, path.to_owned())) })
    }

    /// Kept in memory, for those who want to see it before it is shown.
    pub(crate) fn in_memory(interrupt: &Interrupt) -> Output {
        Output { writer: buffered(Inner::Memory(Vec::new()), interrupt), file: None }
    }

    /// What was written to memory.
    pub(crate) fn into_memory(mut self) -> Result<Vec<u8>, Failure> {
        self.writer.flush()?;
        match &mut self.writer.get_mut().inner {
            Inner::Memory(memory) => Ok(std::mem::take(memory)),
            Inner::Stdout(_) | Inner::File(_) => Ok(Vec::new()),
        }
    }

    /// Everything was written: a file gets its name.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush()?;
        let Some((unfinished, path)) = self.file.take() else { return Ok(()) };
        std::fs::rename(&unfinished, &path).map_err(|error| {
            let _ = std::fs::remove_file(&unfinished);
            Failure::failed(format!("rename {} to {}: {error}", unfinished.display(), path.display()))
        })
    }
}

fn buffered(inner: Inner, interrupt: &Interrupt) -> BufWriter<Interruptible> {
    BufWriter::with_capacity(BUFFER_BYTES, Interruptible { inner, interrupt: interrupt.clone() })
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Output {
    /// A file that is not whole does not stay.
    fn drop(&mut self) {
        if let Some((unfinished, _)) = &self.file {
            let _ = std::fs::remove_file(unfinished);
        }
    }
}
