import Foundation

/// What the benchmark measured, and on what: exported as JSON, so that numbers from phones can be compared.
public struct BenchmarkReport: Codable, Equatable, Sendable {
    /// Which model was measured.
    public struct Model: Codable, Equatable, Sendable {
        public let recipe: String
        public let encoder: String
        public let temporal: String
        /// "fp16" or "int8".
        public let precision: String
        /// SHA-256 of the checkpoint, hexadecimal.
        public let checkpoint: String

        public init(recipe: String, encoder: String, temporal: String, precision: String, checkpoint: String) {
            self.recipe = recipe
            self.encoder = encoder
            self.temporal = temporal
            self.precision = precision
            self.checkpoint = checkpoint
        }

        public init(_ about: ModelAbout) {
            self.init(
                recipe: about.recipe,
                encoder: about.encoder,
                temporal: about.temporal,
                precision: about.precision,
                checkpoint: about.checkpoint
            )
        }
    }

    /// For example "0.1.0 (12)".
    public let appVersion: String
    /// As the system names it, for example "iPhone15,2".
    public let deviceModel: String
    /// For example "iOS 17.5".
    public let system: String
    /// When it began, ISO-8601.
    public let date: String
    public let model: Model
    /// What Core ML was allowed to use, for example "all".
    public let computeUnits: String
    /// Thermal state when it began, for example "nominal".
    public let thermalBefore: String
    /// Thermal state when it ended.
    public let thermalAfter: String
    /// How many frames were encoded.
    public let numFrames: Int
    /// Of the encoder, one frame.
    public let encoder: Spread
    /// Every latency of the encoder in milliseconds, in the order measured; nil where it was not kept.
    public let encoderMs: [Double]?
    /// Of the head, one window.
    public let head: Spread
    /// Every latency of the head in milliseconds, in the order measured; nil where it was not kept.
    public let headMs: [Double]?
    /// Frames a second over the whole run.
    public let framesPerS: Double
    /// How long the run took.
    public let seconds: Double

    enum CodingKeys: String, CodingKey {
        case appVersion = "app_version"
        case deviceModel = "device_model"
        case system
        case date
        case model
        case computeUnits = "compute_units"
        case thermalBefore = "thermal_before"
        case thermalAfter = "thermal_after"
        case numFrames = "num_frames"
        case encoder
        case encoderMs = "encoder_ms"
        case head
        case headMs = "head_ms"
        case framesPerS = "frames_per_s"
        case seconds
    }

    public init(
        appVersion: String,
        deviceModel: String,
        system: String,
        date: String,
        model: Model,
        computeUnits: String,
        thermalBefore: String,
        thermalAfter: String,
        numFrames: Int,
        encoder: Spread,
        encoderMs: [Double]? = nil,
        head: Spread,
        headMs: [Double]? = nil,
        framesPerS: Double,
        seconds: Double
    ) {
        self.appVersion = appVersion
        self.deviceModel = deviceModel
        self.system = system
        self.date = date
        self.model = model
        self.computeUnits = computeUnits
        self.thermalBefore = thermalBefore
        self.thermalAfter = thermalAfter
        self.numFrames = numFrames
        self.encoder = encoder
        self.encoderMs = encoderMs
        self.head = head
        self.headMs = headMs
        self.framesPerS = framesPerS
        self.seconds = seconds
    }

    /// UTF-8 JSON with sorted keys, for people and scripts. Throws where a number is not finite.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self)
    }
}
