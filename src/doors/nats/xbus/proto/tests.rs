//! The messages are those of the published clients, byte for byte.

use prost::Message;

use super::ids::{IdFault, of_token, optional, required};
use super::log::Timestamp;
use super::nrpc::{Error, ErrorType, HeartBeat, KEEP_ALIVE, Reply, end_of_stream, error};
use super::{account, control, envelope, job, log, nrpc, process};

/// Messages with every field set, as the published clients encode them.
const GOLDEN: &str = include_str!("../../../../../tests/doors/xbus/messages.hex");

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    let digits: Vec<u8> = hex.chars().map(|c| u8::try_from(c.to_digit(16).expect("a digit")).expect("small")).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Decodes and encodes as this type; the text of the value shows the fields by name.
fn again<M: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> (Vec<u8>, String) {
    let message = M::decode(bytes).expect("a message of the published clients");
    (message.encode_to_vec(), format!("{message:?}"))
}

type Again = fn(&[u8]) -> (Vec<u8>, String);

fn entry(name: &'static str, again: Again) -> (&'static str, Again) {
    (name, again)
}

/// All messages by name.
fn known() -> Vec<(&'static str, Again)> {
    macro_rules! all {
        ($($module:ident: $($name:ident)*;)*) => { vec![$($(entry(stringify!($name), again::<$module::$name>),)*)*] };
    }
    all! {
        log: LogMessage ConfigEntry StringReply;
        account: Account Actor RegistrationRequest Registration ClientGetActorsRequest ClientGetActorsReply;
        envelope: Event Envelope EventPosition EnvelopePosition EnvelopeFragmentAndPosition EnvelopeAck EnvelopeTarget
            ProcessingContext OutputRequest;
        job: ActorProcessRequest JobInput ActorProcessingState ActorLogRequest ActorReadyMsg SurveyRequest;
        process: PipelineInfo Process ProcessFilter LogEntry PMProcess CoreEvent EnvelopeEvent ProcessNodeReadyEvent
            EmitterEnvelopeState EmitterProcess LaterEnvelopeState;
        control: AccountListRequest AccountListReply AccountUpdateRequest AccountIDRequest ActorRequest ActorReply
            PipelineQueryRequest PipelineQueryReply PipelineSaveRequest PipelineSaveReply PipelineSetStatusReply
            LogsPurgeRequest LogsPurgeReply PMProcessQueryRequest PMProcessQueryReply PMProcessSetStatusRequest
            ProcessQueryRequest ProcessQueryReply ProcessControlRequest ProcessExportRequest ProcessExportReply
            ProcessPurgeRequest TaskProgress OctetStreamList Chunk;
        nrpc: Error HeartBeat;
    }
}

#[test]
fn every_message_is_that_of_the_published_clients() {
    let known = known();
    let mut seen = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split('|').collect();
        let [name, hex, fields, _] = parts[..] else { panic!("{line}") };
        let (_, again) = known.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is missing"));
        let golden = bytes(hex);
        let (encoded, text) = again(&golden);
        assert_eq!(encoded, golden, "{name}: a field is missing, or has another tag or type");
        for field in fields.split("; ").filter(|field| !field.is_empty()) {
            assert!(text.contains(field), "{name}: no {field} in {text}");
        }
        seen.push(name);
    }
    assert_eq!(seen.len(), known.len(), "each message once");
    assert!(known.iter().all(|(name, _)| seen.contains(name)));
}

/// Cuts and damages a message at each place: the answer is a message or an error, and never a panic.
fn damage<M: Message + Default>(golden: &[u8]) {
    for at in 0..golden.len() {
        let mut damaged = golden.to_vec();
        damaged[at] ^= 0xff;
        let results = [M::decode(&golden[..at]), M::decode(&damaged[..])];
        assert!(results.iter().flatten().all(|message| message.encoded_len() <= 2 * golden.len() + 16));
    }
}

#[test]
fn a_damaged_message_is_a_message_or_an_error() {
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let golden = bytes(line.split('|').nth(1).expect("bytes"));
        damage::<envelope::OutputRequest>(&golden);
        damage::<job::ActorProcessingState>(&golden);
        damage::<account::RegistrationRequest>(&golden);
        damage::<control::ProcessQueryRequest>(&golden);
    }
}

#[test]
fn an_error_begins_with_a_0_and_is_never_a_lone_0() {
    assert_eq!(error(ErrorType::Client, "no"), [0, 0x12, 2, b'n', b'o']);
    assert_ne!(error(ErrorType::Client, ""), KEEP_ALIVE);
    let server = error(ErrorType::ServerTooBusy, "full");
    let read = Error { error: 4, message: "full".into(), msg_count: 0 };
    assert_eq!(Reply::read(&server), Ok(Reply::Error(read)));
}

#[test]
fn a_stream_ends_with_its_number_of_messages() {
    assert_eq!(end_of_stream(1), bytes("0008031801"));
    assert_eq!(Reply::read(&end_of_stream(7)), Ok(Reply::End(Some(7))));
    assert_eq!(Reply::read(&end_of_stream(0)), Ok(Reply::End(None)));
    assert_eq!(Reply::read(&KEEP_ALIVE), Ok(Reply::KeepAlive));
    assert_eq!(Reply::read(&[]), Ok(Reply::Message(&[])));
    assert_eq!(Reply::read(&[8, 1]), Ok(Reply::Message(&[8, 1])));
    assert!(Reply::read(&[0, 0xff]).is_err());
    assert_eq!(HeartBeat { lastbeat: true }.encode_to_vec(), [8, 1]);
}

#[test]
fn ids_are_16_bytes_in_messages_and_have_dashes_in_subjects() {
    let id = of_token("53131466-4e2e-11e7-916e-af2b1e6d242d").expect("an id");
    assert_eq!(required(id.as_bytes(), "processID"), Ok(id));
    assert_eq!(optional(&[], "processID"), Ok(None));
    assert_eq!(required(&[], "processID"), Err(IdFault::Missing("processID")));
    assert_eq!(optional(&[1], "processID"), Err(IdFault::Malformed("processID")));
    assert_eq!(of_token("default"), None);
}

#[test]
fn times_of_no_sense_count_as_1970() {
    assert_eq!(Timestamp::from_millis(1_700_000_000_123).millis(), 1_700_000_000_123);
    assert_eq!(Timestamp { seconds: -5, nanos: -1 }.millis(), 0);
    assert_eq!(Timestamp { seconds: i64::MAX, nanos: i32::MAX }.millis(), u64::MAX);
}
