//! The words of what the broker sends, as numbers and back: codes, states and reasons.

use super::generated::{
    Code as WireCode, GapReason as WireGapReason, ReceiptState as WireReceiptState,
};
use crate::{
    Code,
    message::{GapReason, ReceiptState},
    wire::Fault,
};

pub(super) fn code(code: Code) -> WireCode {
    match code {
        Code::InvalidArgument => WireCode::InvalidArgument,
        Code::Unauthenticated => WireCode::Unauthenticated,
        Code::PermissionDenied => WireCode::PermissionDenied,
        Code::NotFound => WireCode::NotFound,
        Code::Conflict => WireCode::Conflict,
        Code::OffsetGone => WireCode::OffsetGone,
        Code::TooLarge => WireCode::TooLarge,
        Code::UnsupportedMediaType => WireCode::UnsupportedMediaType,
        Code::RateLimited => WireCode::RateLimited,
        Code::Unavailable => WireCode::Unavailable,
        Code::Internal => WireCode::Internal,
    }
}

pub(super) fn code_of(given: WireCode) -> Result<Code, Fault> {
    Ok(match given {
        WireCode::Unspecified => return Err(unknown("code")),
        WireCode::InvalidArgument => Code::InvalidArgument,
        WireCode::Unauthenticated => Code::Unauthenticated,
        WireCode::PermissionDenied => Code::PermissionDenied,
        WireCode::NotFound => Code::NotFound,
        WireCode::Conflict => Code::Conflict,
        WireCode::OffsetGone => Code::OffsetGone,
        WireCode::TooLarge => Code::TooLarge,
        WireCode::UnsupportedMediaType => Code::UnsupportedMediaType,
        WireCode::RateLimited => Code::RateLimited,
        WireCode::Unavailable => Code::Unavailable,
        WireCode::Internal => Code::Internal,
    })
}

pub(super) fn state(state: ReceiptState) -> WireReceiptState {
    match state {
        ReceiptState::Pending => WireReceiptState::Pending,
        ReceiptState::InFlight => WireReceiptState::InFlight,
        ReceiptState::Acked => WireReceiptState::Acked,
        ReceiptState::Skipped => WireReceiptState::Skipped,
        ReceiptState::Dead => WireReceiptState::Dead,
    }
}

pub(super) fn state_of(given: WireReceiptState) -> Result<ReceiptState, Fault> {
    Ok(match given {
        WireReceiptState::Unspecified => return Err(unknown("receipts.state")),
        WireReceiptState::Pending => ReceiptState::Pending,
        WireReceiptState::InFlight => ReceiptState::InFlight,
        WireReceiptState::Acked => ReceiptState::Acked,
        WireReceiptState::Skipped => ReceiptState::Skipped,
        WireReceiptState::Dead => ReceiptState::Dead,
    })
}

pub(super) fn gap_reason(reason: GapReason) -> WireGapReason {
    match reason {
        GapReason::Retention => WireGapReason::Retention,
        GapReason::Erased => WireGapReason::Erased,
        GapReason::LogChanged => WireGapReason::LogChanged,
        GapReason::Corrupt => WireGapReason::Corrupt,
    }
}

pub(super) fn gap_reason_of(given: WireGapReason) -> Result<GapReason, Fault> {
    Ok(match given {
        WireGapReason::Unspecified => return Err(unknown("reason")),
        WireGapReason::Retention => GapReason::Retention,
        WireGapReason::Erased => GapReason::Erased,
        WireGapReason::LogChanged => GapReason::LogChanged,
        WireGapReason::Corrupt => GapReason::Corrupt,
    })
}

fn unknown(field: &str) -> Fault {
    Fault::new(field, "is missing or none that this version knows")
}
