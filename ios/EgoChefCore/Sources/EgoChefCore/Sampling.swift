import Foundation

/// The candidate times of a segment [startS, stopS): the middles of K equal parts, K as the grid says.
///
/// - Returns: (K) seconds, rising, inside [startS, stopS).
/// - Precondition: the interval is finite and not empty, and the grid is one of a `ClipSpec` without fault.
public func candidateTimes(startS: Double, stopS: Double, grid: Grid) -> [Double] {
    precondition(startS.isFinite && stopS.isFinite && startS < stopS, "a segment's start must lie before its stop")
    let wanted = roundedTo((stopS - startS) * grid.fps, digits: 6).rounded(.up)
    let numCandidates = max(grid.minFrames, Int(wanted))
    precondition(numCandidates >= 1, "a segment must have candidates")
    let lastS = stopS.nextDown
    return (0..<numCandidates).map { place in
        let timeS = startS + (Double(place) + 0.5) / Double(numCandidates) * (stopS - startS)
        return min(max(timeS, startS), lastS)
    }
}

/// One evaluation view: the candidate in the middle of each of T equal bins.
///
/// - Returns: (T) places 0..<numCandidates, rising; they repeat where there are fewer candidates than bins.
/// - Precondition: both numbers are at least 1.
public func viewPlaces(numCandidates: Int, numFrames: Int) -> [Int] {
    precondition(numCandidates >= 1 && numFrames >= 1, "a view needs candidates and frames")
    return (0..<numFrames).map { bin in
        let moment = (Double(bin) + 0.5) / Double(numFrames) // in [0, 1) of the segment
        return min(Int(moment * Double(numCandidates)), numCandidates - 1)
    }
}

/// Times (T) in [0, windowS) that evaluation would take of a segment of this length, seconds.
public func windowTimes(windowS: Double, clip: ClipSpec) -> [Double] {
    let candidatesS = candidateTimes(startS: 0, stopS: windowS, grid: clip.grid)
    return viewPlaces(numCandidates: candidatesS.count, numFrames: clip.numFrames).map { candidatesS[$0] }
}
