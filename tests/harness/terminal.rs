//! A terminal with a program at it: what is typed goes in by a pseudo-terminal, and the screen is what a person sees.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::process::binary;

/// A debug build on a busy machine is slow; nothing here should come near this.
const SECONDS_MAX: u64 = 60;

/// A terminal.
pub struct Terminal {
    child: Child,
    keys: File,
    arriving: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.screen())
    }
}

impl Terminal {
    /// Starts `gannet` with these arguments at a terminal of this many lines and columns. Its files are below `home`.
    ///
    /// # Panics
    /// When the system gives no terminal.
    pub fn start(rows: u16, columns: u16, term: &str, home: &Path, args: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let winsize = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, winsize).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open =
            || -> OwnedFd { rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap() };
        // Its own session, with this as its terminal, so that Ctrl-C is a signal.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(binary())
            .args(args)
            .current_dir(home)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TERM", term)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let mut output = keys.try_clone().unwrap();
        let (sender, arriving) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        let size = |cells: u16| NonZeroU16::new(cells).unwrap();
        Terminal { child, keys, arriving, screen: vt100::Parser::new(size(rows), size(columns), 0) }
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is closed.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn take_in(&mut self) -> bool {
        loop {
            match self.arriving.try_recv() {
                Ok(bytes) => self.screen.process(&bytes),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// What is on the screen, without blanks at the ends of lines and lines at the end that are empty.
    pub fn screen(&self) -> String {
        let text = self.screen.screen().contents();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    }

    /// Waits until the screen is like this.
    ///
    /// # Panics
    /// When it never is; the screen is shown.
    pub async fn wait_until(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + Duration::from_secs(SECONDS_MAX);
        loop {
            self.take_in();
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain for {what}; the screen:\n{screen}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the last line of the screen is this.
    ///
    /// # Panics
    /// When it never is; the screen is shown.
    pub async fn wait_for_last(&mut self, line: &str) -> String {
        self.wait_until(&format!("a last line `{line}`"), |screen| screen.lines().last() == Some(line)).await
    }

    /// Types a line, and waits for what it brings and the prompt after it; returns what the screen shows from the
    /// line on.
    ///
    /// # Panics
    /// When the prompt does not come back.
    pub async fn enter(&mut self, line: &str, prompt: &str) -> String {
        // A screen of its own, so that nothing scrolls away. The line is there before Enter is pressed.
        self.press("\u{c}");
        self.wait_until("an empty screen", |screen| screen.lines().count() <= 1).await;
        self.press(line);
        let begins = line.split('\n').next_back().unwrap_or(line).trim_end().to_owned();
        let shown: String = begins.chars().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect();
        self.wait_until(&format!("`{shown}`"), |screen| screen.replace('\n', "").contains(&shown)).await;
        self.press("\r");
        let screen = self
            .wait_until(&format!("the prompt after `{line}`"), |screen| {
                screen.lines().count() > 1 && screen.lines().last() == Some(prompt)
            })
            .await;
        let lines: Vec<&str> = screen.lines().collect();
        lines[..lines.len() - 1].join("\n")
    }

    /// Presses a key again and again, as somebody does whose first presses came while the program was between two lines,
    /// and waits for the end of the program.
    ///
    /// # Panics
    /// When it does not end; the screen is shown.
    pub async fn press_until_ended(&mut self, key: &str) -> ExitStatus {
        let deadline = std::time::Instant::now() + Duration::from_secs(SECONDS_MAX);
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }
            // It may have ended by now.
            let _ = self.keys.write_all(key.as_bytes());
            self.take_in();
            let screen = self.screen();
            assert!(std::time::Instant::now() < deadline, "it does not end; the screen:\n{screen}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// When it does not end; the screen is shown.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = std::time::Instant::now() + Duration::from_secs(SECONDS_MAX);
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended;
            }
            self.take_in();
            let screen = self.screen();
            assert!(std::time::Instant::now() < deadline, "it does not end; the screen:\n{screen}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Terminal {
    /// Waits for the end of the program, and for everything that it showed.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn finished(&mut self) -> (ExitStatus, String) {
        let status = self.ended().await;
        while self.take_in() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (status, self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.take_in();
            eprintln!("--- the screen:\n{}", self.screen());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
