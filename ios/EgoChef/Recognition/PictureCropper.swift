import Accelerate
import CoreVideo
import EgoChefCore
import Foundation

/// Why a picture cannot be brought to the encoder's size.
enum CropFault: LocalizedError {
    case noMemory
    case format(OSType)

    var errorDescription: String? {
        switch self {
        case .noMemory: return "There is no memory for the encoder's picture."
        case .format(let format): return "The picture has pixel format \(format), expected 32BGRA."
        }
    }
}

/// From an upright frame of any size to the encoder's picture, with the same resizing as in training: other filters
/// differ by one or two of 255 on average, ten times as much as this one's rounding.
///
/// To be used on one queue.
final class PictureCropper {
    private let imageSize: Int
    private let resizeSize: Int
    private let pool: CVPixelBufferPool
    private var plan: Plan?

    /// - Parameters:
    ///   - imageSize: height and width of the encoder's picture, pixels.
    ///   - resizeSize: the frame's shorter side before the centre crop, pixels.
    init(imageSize: Int, resizeSize: Int) throws {
        self.imageSize = imageSize
        self.resizeSize = resizeSize
        let attributes: [String: Any] = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA,
            kCVPixelBufferWidthKey as String: imageSize,
            kCVPixelBufferHeightKey as String: imageSize,
            kCVPixelBufferIOSurfacePropertiesKey as String: [String: Any](),
        ]
        var made: CVPixelBufferPool?
        CVPixelBufferPoolCreate(kCFAllocatorDefault, nil, attributes as CFDictionary, &made)
        guard let pool = made else { throw CropFault.noMemory }
        self.pool = pool
    }

    /// A 32BGRA frame to 32BGRA, `imageSize` x `imageSize`.
    func crop(_ frame: CVPixelBuffer) throws -> CVPixelBuffer {
        let format = CVPixelBufferGetPixelFormatType(frame)
        guard format == kCVPixelFormatType_32BGRA else { throw CropFault.format(format) }
        var made: CVPixelBuffer?
        CVPixelBufferPoolCreatePixelBuffer(kCFAllocatorDefault, pool, &made)
        guard let picture = made else { throw CropFault.noMemory }

        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        CVPixelBufferLockBaseAddress(picture, [])
        defer { CVPixelBufferUnlockBaseAddress(picture, []) }
        guard let source = CVPixelBufferGetBaseAddress(frame), let target = CVPixelBufferGetBaseAddress(picture) else {
            throw CropFault.noMemory
        }
        let plan = planFor(width: CVPixelBufferGetWidth(frame), height: CVPixelBufferGetHeight(frame))
        plan.run(
            source: source.assumingMemoryBound(to: UInt8.self),
            sourceRowBytes: CVPixelBufferGetBytesPerRow(frame),
            target: target.assumingMemoryBound(to: UInt8.self),
            targetRowBytes: CVPixelBufferGetBytesPerRow(picture)
        )
        return picture
    }

    private func planFor(width: Int, height: Int) -> Plan {
        if let plan, plan.crop.width == width, plan.crop.height == height { return plan }
        let crop = EvalCrop(width: width, height: height, imageSize: imageSize, resizeSize: resizeSize)
        let made = Plan(crop: crop, size: imageSize)
        plan = made
        return made
    }
}

/// The weights and the memory for frames of one size. Accelerate does the loops, so that a debug build is fast too.
private final class Plan {
    let crop: EvalCrop
    private let size: Int
    /// One channel of the part that is read, (rows, columns).
    private let plane: UnsafeMutablePointer<Float>
    /// (S, columns), then transposed (columns, S).
    private let short: UnsafeMutablePointer<Float>
    private let turned: UnsafeMutablePointer<Float>
    /// (S, S) with its axes swapped, then upright.
    private let swapped: UnsafeMutablePointer<Float>
    private let upright: UnsafeMutablePointer<Float>

    init(crop: EvalCrop, size: Int) {
        self.crop = crop
        self.size = size
        plane = .allocate(capacity: crop.rows.count * crop.columns.count)
        short = .allocate(capacity: size * crop.columns.count)
        turned = .allocate(capacity: size * crop.columns.count)
        swapped = .allocate(capacity: size * size)
        upright = .allocate(capacity: size * size)
    }

    deinit {
        plane.deallocate()
        short.deallocate()
        turned.deallocate()
        swapped.deallocate()
        upright.deallocate()
    }

    func run(
        source: UnsafePointer<UInt8>,
        sourceRowBytes: Int,
        target: UnsafeMutablePointer<UInt8>,
        targetRowBytes: Int
    ) {
        let numColumns = crop.columns.count
        let start = source + crop.rows.first * sourceRowBytes + 4 * crop.columns.first
        memset(target, 255, size * targetRowBytes) // alpha; the colours are written below
        for channel in 0..<3 {
            for row in 0..<crop.rows.count {
                let bytes = start + row * sourceRowBytes + channel
                vDSP_vfltu8(bytes, 4, plane + row * numColumns, 1, vDSP_Length(numColumns))
            }
            shrinkRows(plane, crop.rows.taps, to: short, width: numColumns)
            vDSP_mtrans(short, 1, turned, 1, vDSP_Length(numColumns), vDSP_Length(size))
            shrinkRows(turned, crop.columns.taps, to: swapped, width: size)
            vDSP_mtrans(swapped, 1, upright, 1, vDSP_Length(size), vDSP_Length(size))
            for row in 0..<size {
                let bytes = target + row * targetRowBytes + channel
                vDSP_vfixru8(upright + row * size, 1, bytes, 4, vDSP_Length(size))
            }
        }
    }

    /// Each row of the result is a weighted sum of rows, all `width` wide.
    private func shrinkRows(
        _ rows: UnsafePointer<Float>,
        _ taps: [ResizeAxis.Taps],
        to result: UnsafeMutablePointer<Float>,
        width: Int
    ) {
        let length = vDSP_Length(width)
        for (place, each) in taps.enumerated() {
            let sum = result + place * width
            vDSP_vclr(sum, 1, length)
            for (offset, weight) in each.weights.enumerated() {
                var factor = weight
                vDSP_vsma(rows + (each.start + offset) * width, 1, &factor, sum, 1, sum, 1, length)
            }
        }
    }
}
