// The part of the WebAssembly JavaScript interface that Writ uses. TypeScript declares it only beside the DOM, whose
// globals a program for Node must not see.
declare namespace WebAssembly {
  type ImportExportKind = 'function' | 'global' | 'memory' | 'table' | 'tag'
  interface ModuleImportDescriptor {
    readonly module: string
    readonly name: string
    readonly kind: ImportExportKind
  }
  interface ModuleExportDescriptor {
    readonly name: string
    readonly kind: ImportExportKind
  }
  interface MemoryDescriptor {
    readonly initial: number
    readonly maximum?: number
  }
  class Module {
    constructor(bytes: Uint8Array | ArrayBuffer)
    static imports(module: Module): ModuleImportDescriptor[]
    static exports(module: Module): ModuleExportDescriptor[]
  }
  class Memory {
    constructor(descriptor: MemoryDescriptor)
    readonly buffer: ArrayBuffer
    grow(pages: number): number
  }
  class Global {
    value: unknown
  }
  class Table {
    readonly length: number
  }
  type ExportValue = ((...args: number[]) => number) | Global | Memory | Table
  type ImportValue = ((...args: number[]) => unknown) | Global | Memory | Table | number
  type Exports = Readonly<Record<string, ExportValue>>
  type ModuleImports = Record<string, ImportValue>
  type Imports = Record<string, ModuleImports>
  class Instance {
    constructor(module: Module, imports?: Imports)
    readonly exports: Exports
  }
  class RuntimeError extends Error {}
  function compile(bytes: Uint8Array | ArrayBuffer): Promise<Module>
  function instantiate(module: Module, imports?: Imports): Promise<Instance>
  function validate(bytes: Uint8Array | ArrayBuffer): boolean
}
