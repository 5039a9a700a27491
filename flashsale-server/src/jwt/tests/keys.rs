//! Keys made for a test, as the files that an operator has.

use std::io::Write;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, KeyPair},
};
use jsonwebtoken::EncodingKey;
use pem::Pem;
use tempfile::NamedTempFile;

/// A pair of keys, the files of which hold PEM.
pub(super) struct Pair {
    pub(super) public: String,
    pub(super) private: String,
    pub(super) signing: EncodingKey,
}

pub(super) fn pem(tag: &str, der: &[u8]) -> String {
    pem::encode(&Pem::new(tag, der))
}

pub(super) fn rsa() -> Pair {
    let pair = signature::RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let private = pem("PRIVATE KEY", private.as_ref());
    let signing = EncodingKey::from_rsa_pem(private.as_bytes()).unwrap();
    Pair { public: pem("PUBLIC KEY", public.as_ref()), private, signing }
}

pub(super) fn ec(curve: &'static signature::EcdsaSigningAlgorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let private = pair.to_pkcs8v1().unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let private = pem("PRIVATE KEY", private.as_ref());
    let signing = EncodingKey::from_ec_pem(private.as_bytes()).unwrap();
    Pair { public: pem("PUBLIC KEY", public.as_ref()), private, signing }
}

pub(super) fn p256() -> Pair {
    ec(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)
}

pub(super) fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}
