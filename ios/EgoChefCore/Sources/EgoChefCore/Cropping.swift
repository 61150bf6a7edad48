import Foundation

/// How one axis of a picture is resized: bilinear with antialiasing, as Pillow's, torchvision's and the training's.
public struct ResizeAxis: Sendable {
    /// What one place of the result is made of.
    public struct Taps: Sendable {
        /// The first place that is read, counted from `first`.
        public let start: Int
        /// Of that place and the ones after it; they sum up to 1.
        public let weights: [Float]
    }

    /// The first place of the source that is read at all.
    public let first: Int
    /// So many places from there on are read.
    public let count: Int
    /// Per place of the result.
    public let taps: [Taps]

    /// - Parameters:
    ///   - sourceSize: places of the source.
    ///   - resizedSize: places of the whole resized axis.
    ///   - offset: where in the resized axis the wanted part begins.
    ///   - size: places of the wanted part.
    public init(sourceSize: Int, resizedSize: Int, offset: Int, size: Int) {
        let scale = Double(sourceSize) / Double(resizedSize)
        let reach = max(scale, 1) // of the triangle, to each side
        var starts: [Int] = []
        var stops: [Int] = []
        var weights: [[Float]] = []
        for place in offset..<(offset + size) {
            let centre = scale * (Double(place) + 0.5)
            let start = max(Int(centre - reach + 0.5), 0)
            let stop = min(Int(centre + reach + 0.5), sourceSize)
            let triangle = (start..<stop).map { tap -> Double in
                let distance = (Double(tap) - centre + 0.5) / reach
                return max(0, 1 - abs(distance))
            }
            let total = triangle.reduce(0, +)
            starts.append(start)
            stops.append(stop)
            weights.append(triangle.map { Float($0 / total) })
        }
        let lowest = starts.min() ?? 0
        first = lowest
        count = (stops.max() ?? lowest) - lowest
        taps = zip(starts, weights).map { Taps(start: $0 - lowest, weights: $1) }
    }
}

/// Which part of a frame the encoder sees and how it is resized: shorter side to `resizeSize`, then the centre.
public struct EvalCrop: Sendable {
    /// Of the frame, pixels.
    public let width: Int
    public let height: Int
    public let rows: ResizeAxis
    public let columns: ResizeAxis

    /// - Parameters:
    ///   - width: of the frame, pixels.
    ///   - height: of the frame, pixels.
    ///   - imageSize: height and width of the encoder's picture, pixels.
    ///   - resizeSize: the frame's shorter side before the centre crop, pixels.
    public init(width: Int, height: Int, imageSize: Int, resizeSize: Int) {
        self.width = width
        self.height = height
        // As the training resizes: the longer side is rounded down, and halves of the margins to even.
        let newHeight = height <= width ? resizeSize : Int(Double(resizeSize * height) / Double(width))
        let newWidth = width <= height ? resizeSize : Int(Double(resizeSize * width) / Double(height))
        let top = Int((Double(newHeight - imageSize) / 2).rounded(.toNearestOrEven))
        let left = Int((Double(newWidth - imageSize) / 2).rounded(.toNearestOrEven))
        rows = ResizeAxis(sourceSize: height, resizedSize: newHeight, offset: top, size: imageSize)
        columns = ResizeAxis(sourceSize: width, resizedSize: newWidth, offset: left, size: imageSize)
    }
}
