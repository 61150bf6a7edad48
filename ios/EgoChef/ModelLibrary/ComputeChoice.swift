import CoreML

/// What Core ML may use.
enum ComputeChoice: String, CaseIterable, Identifiable, Sendable {
    case all
    case neuralEngine = "cpu_and_neural_engine"
    case gpu = "cpu_and_gpu"
    case cpu = "cpu_only"

    var id: String { rawValue }

    var title: String {
        switch self {
        case .all: return "All"
        case .neuralEngine: return "CPU and Neural Engine"
        case .gpu: return "CPU and GPU"
        case .cpu: return "CPU only"
        }
    }

    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .neuralEngine: return .cpuAndNeuralEngine
        case .gpu: return .cpuAndGPU
        case .cpu: return .cpuOnly
        }
    }
}
