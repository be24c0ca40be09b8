//! The road from MLIR text to an object file.
use codegen::bridge::{Compiler, HostTarget};

fn compiler() -> Compiler {
    Compiler::for_host(&HostTarget::native()).unwrap()
}

#[test]
fn a_vector_kernel_becomes_an_object_with_its_entry() {
    let text = r#"
func.func @k(%a: memref<64xf32>, %b: memref<64xf32>, %begin: index, %end: index) {
  %c16 = arith.constant 16 : index
  %c1 = arith.constant 1 : index
  scf.for %i = %begin to %end step %c1 {
    %o = arith.muli %i, %c16 : index
    %v = vector.load %a[%o] : memref<64xf32>, vector<16xf32>
    %w = math.sqrt %v : vector<16xf32>
    vector.store %w, %b[%o] : memref<64xf32>, vector<16xf32>
  }
  return
}"#;
    let code = compiler().compile(text, &["k".to_string()], true).unwrap();
    assert_eq!(&code.code[..4], b"\x7fELF");
    let assembly = code.assembly.unwrap();
    assert!(assembly.contains("vsqrtps"), "{assembly}");
    assert!(code.llvm.contains("@k(ptr"), "{}", code.llvm);
}

#[test]
fn malformed_text_is_an_error_with_the_reason() {
    let error = compiler().compile("func.func @k( {", &[], false).unwrap_err();
    assert_eq!(error.doing, "reading MLIR");
    assert!(!error.said.is_empty());
}
