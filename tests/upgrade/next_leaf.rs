//! A leaf of the build after this one: everything is the same but the version of its layout.
//!
//! It takes the flags of `gannet leaf` that tests give, and no others.

use std::process::ExitCode;

use gannet_leaf::Config;

fn config() -> Result<Config, String> {
    let mut config = Config::default();
    let mut words = std::env::args().skip(1).filter(|word| word != "leaf");
    while let Some(flag) = words.next() {
        let value = words.next().ok_or_else(|| format!("{flag} takes a value"))?;
        match flag.as_str() {
            "--id" => config.id = value,
            "--data-dir" => config.data_dir = value.into(),
            "--listen" => config.listen = value,
            "--retention" if value == "0" => config.retention_seconds = 0,
            _ => return Err(format!("{flag} {value} is not known here")),
        }
    }
    Ok(config)
}

async fn stopped() {
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminated {
        Ok(mut terminated) => _ = terminated.recv().await,
        Err(error) => eprintln!("SIGTERM will not be heard: {error}"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match config() {
        Ok(config) => gannet_leaf::run(config, stopped()).await.map_err(|error| error.to_string()),
        Err(what) => Err(what),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("error: {what}");
            ExitCode::FAILURE
        }
    }
}
