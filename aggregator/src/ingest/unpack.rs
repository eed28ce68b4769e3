//! Unpacks gzip and zstd, a little at a time: however far a few bytes expand, one step gives a bounded piece.

use std::io::Write;

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::media::BodyEncoding;
use crate::error::{ErrorCode, Failure};

/// The zstd window that is accepted, as a power of two: 32 MiB, which every level up to 20 stays within.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
const ZSTD_PIECE_BYTES: usize = 128 << 10;

pub(super) struct Unpacker {
    kind: Kind,
    /// Bytes came in.
    started: bool,
}

enum Kind {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// With whether the last frame is complete.
    Zstd(Box<ZstdDecoder<'static>>, bool),
}

/// What one step did.
pub(super) struct Step {
    /// So many bytes were taken.
    pub(super) consumed: usize,
    /// More comes out of them: step again, even without further bytes.
    pub(super) more: bool,
}

impl Unpacker {
    pub(super) fn new(encoding: BodyEncoding) -> Result<Unpacker, Failure> {
        let kind = match encoding {
            BodyEncoding::Identity => Kind::Identity,
            BodyEncoding::Gzip => Kind::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            BodyEncoding::Zstd => {
                let start = || -> std::io::Result<ZstdDecoder<'static>> {
                    let mut decoder = ZstdDecoder::new()?;
                    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
                    Ok(decoder)
                };
                let decoder = start().map_err(|error| {
                    Failure::new(ErrorCode::Internal, format!("cannot start a zstd decoder: {error}"))
                })?;
                Kind::Zstd(Box::new(decoder), true)
            }
        };
        Ok(Unpacker { kind, started: false })
    }

    /// Unpacks some of `bytes` into `out`; `None` when nothing is packed and the bytes are the body themselves.
    pub(super) fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<Step>, Failure> {
        self.started = true;
        match &mut self.kind {
            Kind::Identity => Ok(None),
            Kind::Gzip(decoder) => {
                let consumed = decoder.write(bytes).map_err(|error| broken("gzip", &error))?;
                out.append(decoder.get_mut());
                if consumed == 0 && !bytes.is_empty() {
                    return Err(stuck("gzip"));
                }
                Ok(Some(Step { consumed, more: false }))
            }
            Kind::Zstd(decoder, complete) => {
                let filled = out.len();
                out.resize(filled + ZSTD_PIECE_BYTES, 0);
                let place = out.get_mut(filled..).unwrap_or_default();
                let (mut input, mut output) = (InBuffer::around(bytes), OutBuffer::around(place));
                let wanted = decoder.run(&mut input, &mut output).map_err(|error| broken("zstd", &error))?;
                let (consumed, written) = (input.pos, output.pos());
                out.truncate(filled + written);
                if consumed > 0 || written > 0 {
                    *complete = wanted == 0;
                } else if !bytes.is_empty() {
                    return Err(stuck("zstd"));
                }
                Ok(Some(Step { consumed, more: wanted != 0 && written == ZSTD_PIECE_BYTES }))
            }
        }
    }

    /// The body is over: gives what is left, or says that something is missing.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        match &mut self.kind {
            Kind::Gzip(decoder) if self.started => {
                let ended = decoder.try_finish();
                out.append(decoder.get_mut());
                // A checksum that is wrong and one that is missing look the same.
                ended.map_err(|_| {
                    Failure::new(
                        ErrorCode::BadRequest,
                        "gzip body ends before its data is complete, or is damaged",
                    )
                })
            }
            Kind::Zstd(_, false) => {
                Err(Failure::new(ErrorCode::BadRequest, "zstd body ends before its data is complete"))
            }
            Kind::Zstd(..) | Kind::Gzip(_) | Kind::Identity => Ok(()),
        }
    }
}

fn stuck(encoding: &str) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("{encoding} body cannot be unpacked further"))
}

fn broken(encoding: &str, error: &std::io::Error) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("{encoding} body cannot be unpacked: {error}"))
}
